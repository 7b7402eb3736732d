"""Our own forward and backward for Llama-like decoders."""
