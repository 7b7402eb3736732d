"""Answers of a transformers model, in batches, that stop where a turn ends."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..config.results import Reply
from ..data.chat_template.render import render_chat
from ..data.chat_template.sandbox import template_errors
from ..events import ShouldStop, never_stop
from .new_text import NewText, until
from .out_of_memory import empty_cache, ran_out_of_memory
from .padding import padding_is_unseen

Prompt = str | Sequence[Mapping[str, str]]
"""Plain text to continue, or the turns of a conversation, each {"role", "content"}, to answer."""

OnTokens = Callable[[int, int], None]
"""Called after each token with the number of replies that are done, and of tokens in each of those that are
being made."""


def untold(answered: int, tokens: int) -> None:
    """Ignores progress."""


TOGETHER = 5  # prompts answered in one batch
TOGETHER_ON_GPU = 16
ANSWER = "ANSWER"


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Args:
        max_new_tokens: of each answer.
        temperature: 0 takes the most likely token; above, it is sampled.
        top_p: sample from the likeliest tokens with this total probability; None: from all.
        seed: of the samples.
        stop: texts before which an answer ends.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float | None = None
    seed: int = 0
    stop: tuple[str, ...] = ()


def generate(model: Any, tokenizer: Any, prompts: Sequence[Prompt], max_new_tokens: int) -> list[str]:
    """What the model says to each prompt, greedily."""
    rows = [encoded(tokenizer, prompt) for prompt in prompts]
    return [reply.text for reply in replies(model, tokenizer, rows, Sampling(max_new_tokens))]


@torch.no_grad()  # not inference mode: buffers that a model makes anew here must serve in training too
def replies(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Sequence[int]],
    sampling: Sampling,
    on_tokens: OnTokens = untold,
    should_stop: ShouldStop = never_stop,
    on_text: Callable[[str], None] | None = None,
) -> list[Reply]:
    """The reply to each row of input ids; fewer if asked to stop.

    Args:
        on_tokens: told of each token.
        should_stop: asked after each token.
        on_text: called with the text so far of the first reply, as far as no later token changes it.
    """
    found: list[Reply] = []
    stops = stop_tokens(model, tokenizer)
    together = TOGETHER_ON_GPU if model.device.type == "cuda" else TOGETHER
    with _own_settings(model), _seeded(sampling.seed, model.device):
        if len(set(map(len, rows))) > 1 and not padding_is_unseen(model):
            together = 1
        while len(found) < len(rows) and not should_stop():
            batch = rows[len(found) :][:together]
            text = NewText(tokenizer, max(map(len, batch)), sampling.stop, None if found else on_text)
            each_token = _EachToken(len(found), on_tokens, should_stop, text)
            made = _batch_of_replies(
                model, tokenizer, batch, stops, sampling, each_token, alone=together == 1
            )
            if made is None:  # here the error is gone, and with it the tensors that its traceback held
                together = 1
                empty_cache(model.device.type)
            elif not each_token.stopped:
                found += made
    return found


class _EachToken:
    """Called by transformers after each token: tells the progress, and ends the batch when asked to stop."""

    def __init__(
        self,
        answered: int,
        on_tokens: OnTokens,
        should_stop: ShouldStop,
        text: NewText,
    ) -> None:
        self.stopped = False
        self._answered, self._tokens = answered, 0
        self._on_tokens, self._should_stop, self._text = on_tokens, should_stop, text

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        self._tokens += 1
        self._on_tokens(self._answered, self._tokens)
        self.stopped = self._should_stop()
        if self.stopped or not self._text.is_wanted:
            return torch.full((len(input_ids),), self.stopped, dtype=torch.bool, device=input_ids.device)
        untyped: Any = input_ids
        rows: list[list[int]] = untyped.tolist()
        return torch.tensor(self._text.ended(rows), device=input_ids.device)


def _batch_of_replies(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Sequence[int]],
    stops: set[int],
    sampling: Sampling,
    each_token: _EachToken,
    *,
    alone: bool,
) -> list[Reply] | None:
    """Replies of one batch; None if it ran out of memory and is not `alone`."""
    from transformers import StoppingCriteriaList

    input_ids, attention_mask = _padded(tokenizer, rows, model.device)
    try:
        output = model.generate(
            input_ids=input_ids,
            attention_mask=attention_mask,
            generation_config=_config(tokenizer, stops, sampling),
            stopping_criteria=StoppingCriteriaList([each_token]),
        )
    except (RuntimeError, MemoryError) as error:
        if alone or not ran_out_of_memory(error):
            raise
        return None
    new: list[list[int]] = output[:, input_ids.shape[1] :].tolist()  # (prompts, new tokens)
    return [_reply(tokenizer, row, stops, sampling.stop) for row in new]


def _config(tokenizer: Any, stops: set[int], sampling: Sampling) -> Any:
    from transformers import GenerationConfig

    chosen: dict[str, Any] = {"do_sample": False}
    if sampling.temperature > 0:
        top_p = 1.0 if sampling.top_p is None else sampling.top_p
        chosen = {"do_sample": True, "temperature": sampling.temperature, "top_p": top_p, "top_k": 0}
    return GenerationConfig(
        max_new_tokens=sampling.max_new_tokens,
        use_cache=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=sorted(stops) or None,
        **chosen,
    )


def _reply(tokenizer: Any, tokens: list[int], stops: set[int], texts: Sequence[str]) -> Reply:
    """Behind the token that ends an answer there is only padding."""
    end = next((place for place, token in enumerate(tokens) if token in stops), None)
    own = tokens if end is None else tokens[: end + 1]
    text: str = tokenizer.decode(own, skip_special_tokens=True)
    kept = until(text, texts)
    return Reply(text=kept.strip(), tokens=len(own), stopped=end is not None or kept != text)


@contextmanager
def _own_settings(model: Any) -> Generator[None]:
    """Without the model's own settings (penalties, top_k, …): transformers adds them to what is asked for."""
    from transformers import GenerationConfig

    before = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = before


@contextmanager
def _seeded(seed: int, device: torch.device) -> Generator[None]:
    """Samples of this seed; the random numbers of others are not touched."""
    random: Any = torch.random  # half typed
    with random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType]
        yield


def _padded(tokenizer: Any, rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Input ids and attention mask, (prompts, tokens of the longest), filled up on the left."""
    longest = max(len(row) for row in rows)
    fill = tokenizer.pad_token_id or 0
    input_ids = [[fill] * (longest - len(row)) + list(row) for row in rows]
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
