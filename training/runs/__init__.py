"""The run folder, which contains the whole record of a run; and the device queue."""
