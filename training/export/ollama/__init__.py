"""Makes a GGUF file a model of an Ollama server, and asks it something.

ollama_address() -> Address             where the server is, as Ollama itself reads OLLAMA_HOST
read_model_file(path) -> ModelFile      what the GGUF says of itself; refuses what cannot be registered
probe(template, …) -> Pieces            what its chat template puts around the turns
go_template(pieces) -> str              the same for servers that do not run the GGUF's template
OllamaServer(address)                   the server's HTTP API
require_room(name, overwrite)           whether the server could take a model of this name
register(request, …) -> Registration    all of it, in order
"""
