"""The work: runs, data, engines, hardware. Knows neither MCP nor terminals."""
