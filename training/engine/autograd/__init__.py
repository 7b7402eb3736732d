"""Any Hugging Face causal model with PEFT's LoRA, by autograd."""
