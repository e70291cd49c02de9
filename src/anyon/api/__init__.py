"""The HTTP interface: thin routes per noun, envelope, streams."""
