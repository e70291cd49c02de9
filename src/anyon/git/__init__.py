"""Git, inside the project's container only: never on the host."""
