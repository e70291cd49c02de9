"""Durable processes: programs whose output and exit outlive server, client and engine."""
