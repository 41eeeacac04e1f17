"""Long sweeps: processes, checkpoints, and the files of results."""
