"""Wire models and the typed client; used by api, cli and tests."""
