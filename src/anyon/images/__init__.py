"""Workspace images, made without a registry or from a Dockerfile."""
