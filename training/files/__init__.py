"""Paths that may be touched, and files that are whole or absent."""
