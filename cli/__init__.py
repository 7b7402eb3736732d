"""What a person types: the command `backprop`."""
