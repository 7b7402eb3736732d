"""Executes runs, in a worker process or in the caller's process. One file per kind of run."""
