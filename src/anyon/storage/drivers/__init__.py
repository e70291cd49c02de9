"""One file per place where objects can be kept. Only ``wiring`` names a driver."""
