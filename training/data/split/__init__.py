"""Selects the rows to use, the held-out rows, and the training order."""
