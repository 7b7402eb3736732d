"""From a row to `input_ids` and `labels`.

Which characters are trained is decided in `turn_spans`; here it is carried to tokens by their offsets. The
rule at the borders: a token carries loss only if all its characters lie in a trained span. A token that
straddles the beginning of a turn (its first characters belong to the prompt) is not trained, since the model,
given that prompt, can never write it. The end of a turn is a control token, which no other token can
straddle; white space that it swallows behind it does not count.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from functools import cached_property
from typing import Any, NamedTuple

from ..config import DataGroup
from ..errors import ChatTemplateError
from .chat_template import ANOTHER_TEMPLATE, ChatTemplate
from .example import IGNORED, Example
from .messages import Completion, Conversation, Message, Preference, Recognised, Text, as_messages
from .rows import RowError
from .turn_spans import Span, TurnFinder

BATCHES_AHEAD = 3
"""Batches that are tokenised while others are rendered."""


class Rendered(NamedTuple):
    """A row as text, before it is tokenised.

    Args:
        spans: the trained characters; None for all.
        kinds: findings met while rendering.
        document: plain text, which may become several examples, and begins and ends as the tokenizer says.
    """

    text: str
    spans: list[Span] | None
    kinds: tuple[str, ...] = ()
    document: bool = False


class Encoded(NamedTuple):
    """A row's examples and what was met on the way.

    Args:
        length: tokens of the whole row, before any cut.
        trained: tokens that carry loss, in all examples.
    """

    examples: list[Example]
    length: int
    trained: int
    kinds: tuple[str, ...] = ()

    @property
    def kept(self) -> int:
        """Tokens of all examples together."""
        return sum(len(input_ids) for input_ids, _ in self.examples)


class Encoder:
    """Turns rows into examples with one tokenizer and one set of settings.

    Args:
        tokenizer: a transformers tokenizer with offsets (a "fast" one).

    Raises:
        ChatTemplateError: the tokenizer has no offsets.
    """

    def __init__(self, tokenizer: Any, data: DataGroup) -> None:
        if getattr(tokenizer, "backend_tokenizer", None) is None:
            raise ChatTemplateError(
                f"{type(tokenizer).__name__} gives no character offsets, so the loss mask cannot be exact.",
                hint="Use a model that comes with a tokenizer.json.",
            )
        self._data = data
        self._tokenizer = tokenizer
        self._template = ChatTemplate(tokenizer) if tokenizer.chat_template else None
        self._added = set(tokenizer.added_tokens_decoder)

    @cached_property
    def _backend(self) -> Any:
        return _with_full_offsets(self._tokenizer.backend_tokenizer)

    @cached_property
    def _prefix(self) -> list[int]:
        """The tokens that the tokenizer puts before every plain text, e.g. a beginning-of-text token."""
        plain: list[int] = self._tokenizer("a", add_special_tokens=False)["input_ids"]
        full: list[int] = self._tokenizer("a", add_special_tokens=True)["input_ids"]
        at = next((index for index in range(len(full)) if full[index : index + len(plain)] == plain), 0)
        return full[:at]

    @property
    def template(self) -> ChatTemplate:
        """The chat template.

        Raises:
            ChatTemplateError: the model has none.
        """
        return self._template or ChatTemplate(self._tokenizer)

    @cached_property
    def finder(self) -> TurnFinder:
        """Finds the assistant's turns.

        Raises:
            ChatTemplateError: the model has no chat template, or one that allows no exact mask.
        """
        return TurnFinder(self.template)

    @property
    def added_tokens(self) -> frozenset[str]:
        """The tokens that stand in the tokenizer beside its vocabulary, control tokens among them."""
        return frozenset(token.content for token in self._tokenizer.added_tokens_decoder.values())

    @property
    def template_source(self) -> str:
        return str(self._tokenizer.chat_template or "")

    def fingerprint(self) -> str:
        """A hash of all of the tokenizer that its examples depend on."""
        parts = (
            self._tokenizer.backend_tokenizer.to_str(),
            self.template_source,
            str(self._tokenizer.special_tokens_map),
        )
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def render(self, row: Recognised) -> Rendered:
        """The row as text, with its trained characters.

        Raises:
            RowError: the chat template refuses the row, or does not let its turns be told exactly.
            ChatTemplateError: the template allows no exact mask for any row.
        """
        if isinstance(row, Preference):
            raise RowError("preference", f"format {row.format}")
        if isinstance(row, Text):
            return Rendered(row.text, None, document=True)
        if isinstance(row, Completion) and self._template is None:
            start, end = len(row.prompt), len(row.prompt) + len(row.completion)
            spans = None if self._data.train_on == "all" else [Span(1, start, end)]
            return Rendered(row.prompt + row.completion, spans, document=True)
        return self._render_chat(row)

    def _render_chat(self, row: Conversation | Completion) -> Rendered:
        messages, tools, silent = as_messages(row), None, frozenset[int]()
        if isinstance(row, Conversation):
            tools, silent = row.tools, row.silent
        if self._data.merge_system:
            messages, silent = merge_system(messages, silent)
        if self._data.train_on == "all":
            text, spans = self.template.render(messages, tools), None
        else:
            text, spans = self.finder.spans(messages, tools, self._turns(messages, silent))
        return Rendered(text, spans, ("system_lost",) if _loses_system(messages, text) else ())

    def _turns(self, messages: Sequence[Message], silent: frozenset[int]) -> list[int]:
        turns = [
            index
            for index, message in enumerate(messages)
            if message["role"] == "assistant" and index not in silent
        ]
        return turns[-1:] if self._data.train_on == "last" else turns

    def tokenise(self, rows: Sequence[Rendered]) -> list[Encoded]:
        """The rows as examples.

        Raises:
            ChatTemplateError: an end-of-turn token is not where the template put it.
        """
        return self._encoded(rows, self._encodings(rows))

    def tokenise_all(self, batches: Iterable[Sequence[Rendered]]) -> Iterator[list[Encoded]]:
        """`tokenise` for each of many batches.

        The tokenizer works on all cores and without Python's lock, so that rows are rendered meanwhile.
        """
        running: deque[tuple[Sequence[Rendered], Future[list[Any]]]] = deque()
        with ThreadPoolExecutor(1, "tokenise") as thread:
            for rows in batches:
                running.append((rows, thread.submit(self._encodings, rows)))
                if len(running) > BATCHES_AHEAD:
                    rows, found = running.popleft()
                    yield self._encoded(rows, found.result())
            for rows, found in running:
                yield self._encoded(rows, found.result())

    def _encodings(self, rows: Sequence[Rendered]) -> list[Any]:
        return self._backend.encode_batch([row.text for row in rows], add_special_tokens=False)

    def _encoded(self, rows: Sequence[Rendered], encodings: Sequence[Any]) -> list[Encoded]:
        return [self._examples(row, found) for row, found in zip(rows, encodings, strict=True)]

    def character_of_token(self, text: str, number: int) -> int:
        """Where a text's token number `number`, counted from 0, begins."""
        return self._backend.encode(text, add_special_tokens=False).offsets[number][0]

    def _examples(self, row: Rendered, encoding: Any) -> Encoded:
        ids: list[int] = encoding.ids
        labels = ids if row.spans is None else masked(ids, self._ranges(row, encoding, ids))
        if row.document:
            ids, labels = self._as_document(ids, labels)
        if row.document and row.spans is None:
            examples = list(_windows(ids, labels, self._data.max_seq_length))
        else:
            cut = self._data.max_seq_length
            examples = [Example(ids[:cut], labels[:cut])]
        trained = sum(len(labels) - labels.count(IGNORED) for _, labels in examples)
        kinds = row.kinds + (("truncated",) if sum(len(ids) for ids, _ in examples) < len(ids) else ())
        return Encoded(examples, len(ids), trained, kinds if trained else (*row.kinds, "nothing_to_learn"))

    def _ranges(self, row: Rendered, encoding: Any, ids: list[int]) -> list[tuple[int, int]]:
        """The tokens that lie in each trained span."""
        ranges = [
            (_token_from(encoding, span.start, ids), _token_from(encoding, span.end, ids))
            for span in row.spans or ()
        ]
        if not row.document and any(ids[end - 1] not in self._added for _, end in ranges):
            raise ChatTemplateError(
                "The tokenizer does not keep the end of a turn as one token: the loss mask cannot be exact.",
                hint=ANOTHER_TEMPLATE,
            )
        return ranges

    def _as_document(self, ids: list[int], labels: list[int]) -> tuple[list[int], list[int]]:
        end: list[int] = [] if self._tokenizer.eos_token_id is None else [self._tokenizer.eos_token_id]
        return [*self._prefix, *ids, *end], [*[IGNORED] * len(self._prefix), *labels, *end]


def encode(row: Recognised, tokenizer: Any, data: DataGroup | None = None) -> Encoded:
    """One row as examples; see `Encoder` for many."""
    encoder = Encoder(tokenizer, data or DataGroup())
    return encoder.tokenise([encoder.render(row)])[0]


def masked(ids: Sequence[int], ranges: Sequence[tuple[int, int]]) -> list[int]:
    """Labels that are the ids within the ranges of tokens and -100 elsewhere."""
    labels = [IGNORED] * len(ids)
    for start, end in ranges:
        labels[start:end] = ids[start:end]
    return labels


def merge_system(messages: list[Message], silent: frozenset[int]) -> tuple[list[Message], frozenset[int]]:
    """The messages with a leading system message put before the first user's text."""
    if len(messages) < 2 or messages[0]["role"] != "system" or messages[1]["role"] != "user":
        return messages, silent
    system, first, *rest = messages
    merged = f"{system['content']}\n\n{first['content']}" if system["content"].strip() else first["content"]
    return [{**first, "content": merged}, *rest], frozenset(index - 1 for index in silent)


def _loses_system(messages: Sequence[Message], text: str) -> bool:
    system = messages[0]["content"].strip() if messages[0]["role"] == "system" else ""
    return system not in text


def _windows(ids: list[int], labels: list[int], size: int) -> Iterator[Example]:
    """A long document as several examples, so that nothing of it is lost."""
    for start in range(0, len(ids), size):
        yield Example(ids[start : start + size], labels[start : start + size])


def _token_from(encoding: Any, character: int, ids: list[int]) -> int:
    """The first token that begins at a character or later."""
    token = encoding.char_to_token(character)
    if token is None:  # no token holds the character: the text ends, or a normaliser dropped it
        return bisect_left([start for start, _ in encoding.offsets], character)
    while token < len(ids) and encoding.token_to_chars(token)[0] < character:
        token += 1
    return token


def _with_full_offsets(backend: Any) -> Any:
    """A copy whose offsets count the space before a word as part of its token; many hide it."""
    from tokenizers.processors import ByteLevel

    copy = deepcopy(backend)
    copy.no_truncation()
    copy.no_padding()
    copy.post_processor = ByteLevel(trim_offsets=False)
    return copy
