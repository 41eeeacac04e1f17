"""Calibrated timing of the kernels of serving libraries: matmul, attention, routed experts and collectives."""
