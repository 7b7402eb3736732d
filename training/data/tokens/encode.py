"""From a row to `input_ids` and `labels`.

`turn_spans` decides which characters are trained; this module maps them to tokens by their offsets. A token
carries loss only if all its characters are in a trained span. A token across the start of a turn (its first
characters belong to the prompt) is not trained: after that prompt the model can never generate it. A turn
ends with a control token, which is always a token of its own; white space after it that the tokenizer counts
as part of it is ignored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

from ...config.specs import DataGroup
from ...errors import ChatTemplateError
from ...models.token_limits import TokenLimits
from ...untrusted import quoted
from ..chat_template.shown_parts import ShownParts
from ..chat_template.template import ANOTHER_TEMPLATE, ChatTemplate
from ..chat_template.turn_spans import Span, TurnFinder
from ..findings import KINDS
from ..formats.messages import Completion, Conversation, Message, Preference, Recognised, Text, as_messages
from ..readers.rows import RowError
from .example import IGNORED, Example, MaskedTokens
from .fast_tokenizer import FastTokenizer, fast_tokenizer
from .long_texts import PIECE, tokenise_long
from .token_offsets import ModelTokenizer, Tokenised

NO_LIMITS = TokenLimits()

ROWS_AT_ONCE, CHARACTERS_AT_ONCE = 256, 2**19
"""Limits of a batch. It is tokenised when it reaches either of them."""

FAST_FROM_CHARACTERS = 2**22
"""Characters of text from which the fast tokenizer is used. It takes half a second to build."""


HALF_CHARACTER = "\ufffd"
"""What an incomplete character is decoded to."""
LONGEST_CHARACTER = 4  # tokens, one for each byte


class Rendered(NamedTuple):
    """A row as text, before it is tokenised.

    Args:
        spans: the trained characters; None: all.
        kinds: kinds of findings from rendering.
        document: plain text. It may become several examples, and gets the tokenizer's start and end tokens.
    """

    text: str
    spans: list[Span] | None
    kinds: tuple[str, ...] = ()
    document: bool = False


class Encoded(NamedTuple):
    """A row's examples and the findings from encoding it.

    Args:
        parts: its examples. A long document gives several, so that no token is lost.
        length: tokens of the whole row, before truncation.
        trained: tokens that carry loss, in all examples.
        reason: why it cannot be used; see `refusal`.
    """

    parts: list[MaskedTokens]
    length: int
    trained: int
    kinds: tuple[str, ...] = ()
    reason: str = ""

    @property
    def refusal(self) -> str | None:
        """The kind of finding for which the row cannot be used, or None."""
        return next((kind for kind in self.kinds if KINDS[kind].severity == "error"), None)

    @property
    def kept(self) -> int:
        """Tokens of all examples together."""
        return sum(len(part.input_ids) for part in self.parts)

    @property
    def examples(self) -> list[Example]:
        """The examples with labels."""
        return [part.example() for part in self.parts]


class Encoder:
    """Encodes rows as examples, with one tokenizer and one set of settings.

    Args:
        tokenizer: a transformers tokenizer with offsets (a "fast" one).
        limits: of the model.

    Raises:
        ChatTemplateError: the tokenizer has no offsets.
    """

    def __init__(self, tokenizer: Any, data: DataGroup, limits: TokenLimits = NO_LIMITS) -> None:
        if getattr(tokenizer, "backend_tokenizer", None) is None:
            raise ChatTemplateError(
                f"{type(tokenizer).__name__} gives no character offsets, so the loss mask cannot be exact.",
                hint="Use a model that comes with a tokenizer.json.",
            )
        self._data, self._limits = data, limits
        self._size = max(2, min(data.max_seq_length, limits.positions or data.max_seq_length))
        self._tokenizer = tokenizer
        self._template = ChatTemplate(tokenizer) if tokenizer.chat_template else None
        self._added = set(tokenizer.added_tokens_decoder)
        self._fast: Future[FastTokenizer | None] | None = None
        self._characters = 0

    @cached_property
    def _model_tokenizer(self) -> ModelTokenizer:
        return ModelTokenizer(self._tokenizer.backend_tokenizer)

    @cached_property
    def _prefix(self) -> list[int]:
        """The tokens that the tokenizer adds before every plain text, e.g. a beginning-of-text token."""
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
        """Finds the assistant turns.

        Raises:
            ChatTemplateError: the model has no chat template, or one that allows no exact mask.
        """
        return TurnFinder(self.template)

    @cached_property
    def _shown_parts(self) -> ShownParts:
        return ShownParts(self.template)

    @property
    def max_seq_length(self) -> int:
        """Maximum tokens of an example: those of the settings, or the positions of the model."""
        return self._size

    @property
    def added_tokens(self) -> frozenset[str]:
        """The tokens added to the tokenizer's vocabulary, control tokens included."""
        return frozenset(token.content for token in self._tokenizer.added_tokens_decoder.values())

    @property
    def template_source(self) -> str:
        return str(self._tokenizer.chat_template or "")

    def fingerprint(self) -> str:
        """A hash of everything in the tokenizer that affects examples."""
        parts = (
            self._tokenizer.backend_tokenizer.to_str(),
            self.template_source,
            str(self._tokenizer.special_tokens_map),
            str(tuple(self._limits)),
        )
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def render(self, row: Recognised) -> Rendered:
        """Renders a row as text, with its trained characters.

        Raises:
            RowError: the chat template refuses the row, or the exact characters of its turns are unknown.
            ChatTemplateError: the template allows no exact mask for any row.
        """
        if isinstance(row, Preference):
            raise RowError(row.format, f"format {row.format}")
        if isinstance(row, Text):
            return Rendered(row.text, None, document=True)
        if isinstance(row, Completion) and self._template is None:
            # A space before a word is part of its token, so the spaces that end the prompt begin the answer.
            start, end = len(row.prompt.rstrip(" \t")), len(row.prompt) + len(row.completion)
            spans = None if self._data.train_on == "all" else [Span(1, start, end)]
            return Rendered(row.prompt + row.completion, spans, document=True)
        return self._render_chat(row)

    def _render_chat(self, row: Conversation | Completion) -> Rendered:
        messages, tools, untrained = as_messages(row), None, frozenset[int]()
        if isinstance(row, Conversation):
            tools, untrained = row.tools, row.untrained
        if self._data.train_on != "all":
            messages = [self._without_end(message) for message in messages]
        if self._data.merge_system:
            messages, untrained = merge_system(messages, untrained)
        turns = self._turns(messages, untrained)
        if self._data.train_on == "all":
            text, spans = self.template.render(messages, tools), None
        else:
            text, spans = self.finder.spans(messages, tools, turns)
        return Rendered(text, spans, self._shown_parts.lost(messages, tools, turns))

    def _without_end(self, message: Message) -> Message:
        """The message without an end-of-turn token that its answer has already; the template adds it."""
        end = self.finder.markers.end
        if message["role"] != "assistant" or not message["content"].rstrip().endswith(end):
            return message
        return {**message, "content": message["content"].rstrip().removesuffix(end)}

    def _turns(self, messages: Sequence[Message], untrained: frozenset[int]) -> list[int]:
        turns = [
            index
            for index, message in enumerate(messages)
            if message["role"] == "assistant" and index not in untrained
        ]
        return turns[-1:] if self._data.train_on == "last" else turns

    def expect(self, characters: int) -> None:
        """Announces how many characters follow; for many, starts to build the fast tokenizer in a thread."""
        if characters >= FAST_FROM_CHARACTERS and self._fast is None:
            thread = ThreadPoolExecutor(1, "fast-tokenizer")
            self._fast = thread.submit(fast_tokenizer, self._tokenizer.backend_tokenizer)
            thread.shutdown(wait=False)

    def tokenise(self, rows: Sequence[Rendered]) -> list[Encoded]:
        """Tokenises rendered rows.

        Raises:
            ChatTemplateError: the end of a turn is not tokenised as a control token.
        """
        texts = [row.text for row in rows]
        char_offsets = [
            [offset for span in row.spans or () for offset in (span.start, span.end)] for row in rows
        ]
        found = self._tokenised(texts, char_offsets)
        return [self._encoded(row, one) for row, one in zip(rows, found, strict=True)]

    def _tokenised(self, texts: Sequence[str], char_offsets: Sequence[Sequence[int]]) -> list[Tokenised]:
        self._characters += sum(map(len, texts))
        # A stream of unknown size: much text so far means that more is likely.
        self.expect(self._characters // 4)
        if max(map(len, texts), default=0) <= PIECE:
            return self._whole(texts, char_offsets)
        return [self._in_pieces(text, asked) for text, asked in zip(texts, char_offsets, strict=True)]

    def _in_pieces(self, text: str, char_offsets: Sequence[int]) -> Tokenised:
        def whole(text: str, char_offsets: Sequence[int]) -> Tokenised:
            return self._whole([text], [char_offsets])[0]

        found = tokenise_long(whole, text, char_offsets) if len(text) > PIECE else None
        return found or whole(text, char_offsets)

    def _whole(self, texts: Sequence[str], char_offsets: Sequence[Sequence[int]]) -> list[Tokenised]:
        fast = self._fast.result() if self._fast else None
        found: list[Tokenised | None] = [None] * len(texts)
        if fast:
            found = fast.tokenise(texts, char_offsets)
        left = [number for number, one in enumerate(found) if one is None]
        if left:
            own = self._model_tokenizer.tokenise(
                [texts[number] for number in left], [char_offsets[number] for number in left]
            )
            for number, one in zip(left, own, strict=True):
                found[number] = one
        return [one for one in found if one is not None]

    def decoded(self, one: Encoded) -> list[tuple[str, bool]]:
        """The text of a row's examples in runs of tokens, each with whether they carry loss."""
        runs: list[tuple[list[int], bool]] = []
        for token, trained in _labelled(one):
            if not runs or runs[-1][1] != trained:
                runs.append(([], trained))
            runs[-1][0].append(token)
        return [(self._decode(ids), trained) for ids, trained in runs]

    def decoded_tokens(self, one: Encoded, most: int) -> list[tuple[str, bool]]:
        """The text of a row's first tokens, each with whether it carries loss.

        A token is what it adds to the text so far; of several that make up one character, the last one.
        """
        shown: list[tuple[str, bool]] = []
        before: list[int] = []
        ids: list[int] = []
        for token, trained in islice(_labelled(one), most):
            ids.append(token)
            # Alone, some decoders leave out the space with which a token begins.
            text = self._decode([*before, *ids])[len(self._decode(before)) :]
            if text.endswith(HALF_CHARACTER) and len(ids) < LONGEST_CHARACTER:
                shown.append(("", trained))
                continue
            shown.append((text, trained))
            before, ids = ids, []
        return shown

    def _decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=False)

    def _encoded(self, row: Rendered, found: Tokenised) -> Encoded:
        whole = MaskedTokens(found.ids, self._trained(row, found))
        length, size = len(found.ids), self._size
        if row.document:
            whole = self._as_document(whole)
            length = len(whole.input_ids)
        parts = whole.windows(size) if row.document and row.spans is None else [whole.part(0, size)]
        trained = sum(part.trained_tokens for part in parts)
        kinds = [*row.kinds]
        reason = self._unknown(int(whole.input_ids.max(initial=0)))
        if reason:
            kinds.append("unknown_token")
        if not trained:
            kinds.append("nothing_to_learn")
        elif sum(len(part.input_ids) for part in parts) < length:
            kinds.append("truncated" if size == self._data.max_seq_length else "beyond_positions")
        return Encoded(parts, length, trained, tuple(kinds), reason)

    def _unknown(self, token: int) -> str:
        """Why the model cannot have this token; empty if it can."""
        vocabulary = self._limits.vocabulary
        if vocabulary is None or token < vocabulary:
            return ""
        name = quoted(self._tokenizer.backend_tokenizer.id_to_token(token))
        return f"{name} is token {token:,}, the embedding has {vocabulary:,} rows"

    def _trained(self, row: Rendered, found: Tokenised) -> list[tuple[int, int]]:
        """The range of tokens in each trained span."""
        if row.spans is None:
            return [(0, len(found.ids))]
        ranges = [*zip(found.token_offsets[::2], found.token_offsets[1::2], strict=True)]
        if not row.document and any(int(found.ids[end - 1]) not in self._added for _, end in ranges):
            raise ChatTemplateError(
                "The tokenizer splits the end-of-turn token, so the loss mask cannot be exact.",
                hint=ANOTHER_TEMPLATE,
            )
        return ranges

    def _as_document(self, tokens: MaskedTokens) -> MaskedTokens:
        """The tokens with the tokenizer's start and end tokens. The end token is trained."""
        import numpy as np

        end: list[int] = [] if self._tokenizer.eos_token_id is None else [self._tokenizer.eos_token_id]
        text, prefix = tokens.input_ids, self._prefix
        # The text may have been rendered or completed with these tokens already.
        before = [] if text[: len(prefix)].tolist() == prefix else prefix
        after = [] if text[-1:].tolist() == end else end
        ids = np.concatenate([np.array(before, np.int32), tokens.input_ids, np.array(after, np.int32)])
        trained = [(start + len(before), stop + len(before)) for start, stop in tokens.trained]
        return MaskedTokens(ids, [*trained, (len(ids) - len(after), len(ids))])


def _labelled(one: Encoded) -> Iterator[tuple[int, bool]]:
    """The tokens of a row's examples, each once, with whether they carry loss."""
    for number, part in enumerate(one.parts):
        ids, labels = part.example()
        overlap = int(number > 0)  # the first token of a later window is the last of the one before
        for token, label in zip(ids[overlap:], labels[overlap:], strict=True):
            yield token, label != IGNORED


def encode(row: Recognised, tokenizer: Any, data: DataGroup | None = None) -> Encoded:
    """Encodes one row; use `Encoder` for many."""
    encoder = Encoder(tokenizer, data or DataGroup())
    return encoder.tokenise([encoder.render(row)])[0]


def end_tokens(tokenizer: Any) -> list[int]:
    """The tokens at which an answer ends, as it is trained: that of the chat template, or of a text."""
    if tokenizer.chat_template:
        with suppress(ChatTemplateError, RowError):
            end = TurnFinder(ChatTemplate(tokenizer)).markers.end
            return [tokenizer.backend_tokenizer.token_to_id(end)]
    return [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]


def merge_system(messages: list[Message], untrained: frozenset[int]) -> tuple[list[Message], frozenset[int]]:
    """The messages with a leading system message merged into the first user message."""
    if len(messages) < 2 or messages[0]["role"] != "system" or messages[1]["role"] != "user":
        return messages, untrained
    system, first, *rest = messages
    merged = f"{system['content']}\n\n{first['content']}" if system["content"].strip() else first["content"]
    return [{**first, "content": merged}, *rest], frozenset(index - 1 for index in untrained)
