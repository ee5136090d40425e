"""The definition of a score, in NumPy alone."""
