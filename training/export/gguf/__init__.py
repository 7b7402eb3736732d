"""A base and an adapter as one GGUF file."""
