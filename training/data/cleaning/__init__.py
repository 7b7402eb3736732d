"""Optional changes and checks of rows: duplicates, quality, private data, control tokens."""
