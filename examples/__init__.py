"""Example datasets, found with importlib.resources."""
