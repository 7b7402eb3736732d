"""Checks that an exported file is the trained model."""
