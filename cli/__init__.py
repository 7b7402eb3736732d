"""The command line: `backprop`."""
