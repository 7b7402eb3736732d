"""Merges the adapters of a sequence of tasks into one."""
