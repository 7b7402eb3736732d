"""A run carried out: in a process of its own, or in the caller's. One file per kind of run."""
