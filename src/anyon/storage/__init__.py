"""Object stores, chunking, checkpoints, restore.

The front door is ``checkpoints.Checkpoints``; the on-disk format is told in
``docs/reference/checkpoint-format.md``.
"""
