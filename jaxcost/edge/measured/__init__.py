"""Files of measured kernels and served requests."""
