"""From a model name to a folder with its files."""
