"""What `experiments/01_benchmark.py` measures, cell by cell."""
