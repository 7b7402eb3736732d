"""The tokenizer of an exported GGUF: what llama.cpp must know to split text as the model was trained to."""
