"""Runs as resources: what each holds, the list, and who is told when a run moves."""
