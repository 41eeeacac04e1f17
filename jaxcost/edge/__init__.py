"""The only layer that reads, writes or prints."""
