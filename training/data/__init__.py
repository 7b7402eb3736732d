"""From a file to `input_ids` and `labels`."""
