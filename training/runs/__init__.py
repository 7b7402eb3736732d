"""The run folder: the one place where a run is written down."""
