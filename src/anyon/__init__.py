"""Anyon: one long-lived environment per project, in which coding agents work side by side."""

__version__ = "0.1.0"
