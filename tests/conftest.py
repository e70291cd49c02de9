"""What holds for all tests."""

from anyon.wiring.serve import hear_ignored_signals


def pytest_configure() -> None:
    """Start programs with the signals of an ordinary terminal, also under ``nohup`` or a runner like it."""
    hear_ignored_signals()
