"""Thin routes, authentication, the envelope, and streams."""
