"""Buckets mounted as file systems: the interface of a mounter, its drivers, and how a mount is looked at."""
