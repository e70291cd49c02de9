"""Benchmarks: one module each, with ``run() -> Sequence[Row]``; started by ``./bench NAME``."""
