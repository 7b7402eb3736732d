"""What an agent can ask: one file per tool."""
