"""Checkpoints: their manifest, the replay shards, any file system, saving and restoring."""
