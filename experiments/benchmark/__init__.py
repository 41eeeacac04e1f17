"""The measurements of `experiments/01_benchmark.py`, cell by cell."""
