"""Builds specs from arguments, and resolves the names of models, datasets, runs and files."""
