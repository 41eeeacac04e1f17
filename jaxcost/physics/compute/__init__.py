"""The operators of a step: their work, and the time of each by a roofline."""
