"""Object stores, chunking, checkpoints, restore."""
