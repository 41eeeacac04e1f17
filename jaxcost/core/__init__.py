"""Foundation: pytrees, smooth operators, array arithmetic, programs, units in text. Nothing of the domain."""
