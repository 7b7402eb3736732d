"""`backprop doctor`: looks at what a training needs, and names the repair of what is wrong.

command.py      the command: all checks at once, each with a limit of time
finding.py      what a check has found
installation.py Python, packages, torch
machine.py      GPUs, disk, the home folder, settings
services.py     the Hub, Ollama, llama.cpp
clients.py      the entries in the files of MCP clients
"""
