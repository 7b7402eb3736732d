"""New dataset files from others: converted to chat messages, or split in two."""
