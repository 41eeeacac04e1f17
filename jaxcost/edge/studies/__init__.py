"""The files of spaces and of co-design studies."""
