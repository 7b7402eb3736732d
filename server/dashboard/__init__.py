"""A run shown live inside the client, as an MCP App."""
