"""Reading and writing files, quantities with units, and the errors of bad input."""
