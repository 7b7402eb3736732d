"""The adapter merged into its base as safetensors, or the adapter alone."""
