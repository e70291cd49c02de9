"""Contracts, fakes and faults, shipped for authors of drivers; nothing shipped imports this."""
