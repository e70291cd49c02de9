"""Load tests: a known amount of work given to any server by its interface, and a report of how it bore it."""
