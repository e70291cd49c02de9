"""Loops: a tick and a wait each, over pure decisions."""
