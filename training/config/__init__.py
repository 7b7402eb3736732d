"""Definitions of all settings, specs and results. Imports only pydantic and the standard library."""
