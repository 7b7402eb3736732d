"""From an adapter to a model that answers elsewhere: GGUF, merged, LoRA; Ollama and the Hub."""
