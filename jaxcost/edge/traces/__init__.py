"""Files of recorded requests: readers by format, and writers."""
