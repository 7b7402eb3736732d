"""What stands around every call: its line in the audit log, its limits and its metrics."""
