"""Every setting, spec and result once. Imports pydantic and the standard library only."""
