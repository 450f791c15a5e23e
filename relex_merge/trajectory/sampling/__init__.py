"""Gram matrices from a part of the numbers: which part, the estimate, and its standard error."""
