"""From a path or a Hub dataset to raw rows, each with its file and line."""
