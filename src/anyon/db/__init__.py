"""The database: what is recorded, in short transactions; no other I/O happens here."""
