"""Nouns: what a system, a model, a traffic and a plan are, as data."""
