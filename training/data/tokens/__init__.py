"""From text to `input_ids` and `labels`, stored on disk."""
