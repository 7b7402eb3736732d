"""A GGUF file of a few hundred bytes: a vocabulary, a chat template and one tensor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gguf import GGUFWriter

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
DEFAULT_SYSTEM = (
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face. Be brief and kind in all that you "
    "say to people, and say so when there is something that you do not know."
)
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\n"
    + DEFAULT_SYSTEM
    + "<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "a", "b"]
CONTROL, NORMAL = 3, 1


def write_gguf(
    path: Path, template: str | None = CHATML, *, kind: str | None = "model", eos: int = 0, tensor: int = 32
) -> Path:
    """Write the file and return its path.

    Args:
        eos: index of the end-of-text token in `TOKENS`.
        tensor: numbers in its one tensor.
    """
    writer = GGUFWriter(path, "llama")
    if kind:
        writer.add_type(kind)
    writer.add_block_count(1)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([CONTROL, CONTROL, CONTROL, NORMAL, NORMAL])
    writer.add_token_merges(["a b"] * 50)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(eos)
    writer.add_add_bos_token(False)
    if template is not None:
        writer.add_chat_template(template)
    writer.add_tensor("token_embd.weight", np.arange(tensor, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
