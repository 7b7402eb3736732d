"""Speaks MCP. Knows no torch, and does no training itself."""
