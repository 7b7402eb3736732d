"""Unsloth's trainer, in another Python environment."""
