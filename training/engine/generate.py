"""Greedy answers of a transformers model, in batches, that stop where a turn ends."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..data.chat_template.render import render_chat
from ..data.chat_template.sandbox import template_errors
from .out_of_memory import ran_out_of_memory

Prompt = str | Sequence[Mapping[str, str]]
"""Plain text to continue, or the turns of a conversation, each {"role", "content"}, to answer."""

TOGETHER = 5  # prompts answered in one batch
ANSWER = "ANSWER"


@torch.no_grad()  # not inference mode: buffers that a model makes anew here must serve in training too
def generate(model: Any, tokenizer: Any, prompts: Sequence[Prompt], max_new_tokens: int) -> list[str]:
    """What the model says to each prompt."""
    from transformers import GenerationConfig

    stops = sorted(stop_tokens(model, tokenizer))
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        use_cache=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=stops or None,
    )
    answers: list[str] = []
    together = TOGETHER
    while len(answers) < len(prompts):
        found = _answers(model, tokenizer, prompts[len(answers) :][:together], settings, alone=together == 1)
        if found is None:  # here the error is gone, and with it the tensors that its traceback held
            together = 1
            gc.collect()
            if model.device.type == "cuda":
                torch.cuda.empty_cache()
        answers += found or []
    return answers


def _answers(
    model: Any, tokenizer: Any, prompts: Sequence[Prompt], settings: Any, *, alone: bool
) -> list[str] | None:
    """Answers of one batch; None if it ran out of memory and is not `alone`."""
    input_ids, attention_mask = _batch(tokenizer, prompts, model.device)
    try:
        output = model.generate(
            input_ids=input_ids, attention_mask=attention_mask, generation_config=settings
        )
    except (RuntimeError, MemoryError) as error:
        if alone or not ran_out_of_memory(error):
            raise
        return None
    new = output[:, input_ids.shape[1] :]  # (prompts, new tokens)
    return [text.strip() for text in tokenizer.batch_decode(new, skip_special_tokens=True)]


def _batch(tokenizer: Any, prompts: Sequence[Prompt], device: torch.device) -> tuple[Tensor, Tensor]:
    """Input ids and attention mask, (prompts, tokens of the longest), filled up on the left."""
    rows = [encoded(tokenizer, prompt) for prompt in prompts]
    longest = max(len(row) for row in rows)
    fill = tokenizer.pad_token_id or 0
    input_ids = [[fill] * (longest - len(row)) + row for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(input_ids, device=device), torch.tensor(mask, device=device)


def encoded(tokenizer: Any, prompt: Prompt) -> list[int]:
    """The tokens of a prompt. A template writes its own BOS; plain text gets the tokenizer's."""
    if isinstance(prompt, str):
        ids: list[int] = tokenizer(prompt)["input_ids"]
        return ids[:-1] if len(ids) > 1 and ids[-1] == tokenizer.eos_token_id else ids
    text = render_chat(tokenizer, list(prompt), add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def stop_tokens(model: Any, tokenizer: Any) -> set[int]:
    """The model's end tokens, the tokenizer's, and what the chat template puts after an assistant's turn."""
    configured: int | Sequence[int] | None = model.generation_config.eos_token_id
    listed = [configured] if isinstance(configured, int) else configured or []
    found: set[int | None] = {*listed, tokenizer.eos_token_id, *_end_of_turn(tokenizer)}
    return {token for token in found if token is not None}


def _end_of_turn(tokenizer: Any) -> Iterator[int]:
    """That token, if it is a single special one."""
    if not tokenizer.chat_template:
        return
    turns = [{"role": "user", "content": "Question"}, {"role": "assistant", "content": ANSWER}]
    try:
        text = render_chat(tokenizer, turns)
    except template_errors():  # it wants other turns than these
        return
    after = tokenizer(text.rpartition(ANSWER)[2].strip(), add_special_tokens=False)["input_ids"]
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    if len(after) == 1 and after[0] in special:
        yield after[0]
