"""Records: one query module per noun, each transaction short, no I/O inside."""
