"""The precision in which a checkpoint is stored."""
