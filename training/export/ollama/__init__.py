"""Makes a GGUF file a model of an Ollama server, and asks it something.

ollama_address() -> Address              where the server is, as Ollama itself reads OLLAMA_HOST
read_model_file(path) -> ModelFile       metadata of the GGUF; refuses files that cannot be registered
template_parts(…) -> TemplateParts       what its chat template puts around the turns
go_template(parts) -> str                the same for servers that do not run the GGUF's template
OllamaServer(address)                    the server's HTTP API
check_name_is_free(name, overwrite)      whether the server could take a model of this name
register(request, …) -> Registration     all steps, in order
"""
