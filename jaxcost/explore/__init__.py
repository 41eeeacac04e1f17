"""Transforms of evaluate: spaces, sweeps, sensitivities."""
