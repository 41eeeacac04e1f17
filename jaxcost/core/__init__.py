"""Foundation: trees, smooth operators, units of text. No domain words."""
