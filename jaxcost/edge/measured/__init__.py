"""Readers and writers of measured kernels and served requests."""
