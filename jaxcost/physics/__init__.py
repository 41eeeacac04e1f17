"""Verbs: one family of equations a file."""
