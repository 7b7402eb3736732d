"""Engines: what turns examples into an adapter."""
