"""Making a bucket ready, as ``anyon gcs init`` asks for it."""

from anyon.storage.buckets import Difference, Readiness, Wanted, check, make_ready

__all__ = ["Difference", "Readiness", "Wanted", "check", "make_ready"]
