"""Encoders and projectors, and the wrappers of language models that have them."""
