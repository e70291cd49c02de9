"""The command line: one file per group; talks to the server through the typed client only."""
