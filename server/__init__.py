"""The MCP server. It imports no torch and does no training."""
