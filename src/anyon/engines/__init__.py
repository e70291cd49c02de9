"""Engines: what makes and runs a project's one container."""
