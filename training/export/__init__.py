"""What is made of a trained adapter: files that other programs load."""
