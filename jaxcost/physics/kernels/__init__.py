"""How the kernels of a serving library use a chip: calibrated forms."""
