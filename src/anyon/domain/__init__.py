"""What Anyon talks about: facts, states and decisions; no I/O, no async."""
