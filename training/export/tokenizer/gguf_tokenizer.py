"""A model folder's tokenizer as the `tokenizer.*` metadata of a GGUF file.

The metadata are those that llama.cpp's own converter writes for the same folder, with four differences.
The name of the pre-tokenizer follows from the rules in tokenizer.json instead of a hash over token ids.
What the tokenizer adds around a text is found by running it, and always written. Where there is only a
tokenizer.json of a SentencePiece tokenizer, tokens get the scores that follow from its merges, while the
converter gives all of them the same and llama.cpp then splits words elsewhere; Gemma 4's stands there as the
SentencePiece tokenizer that it is, while the converter writes its merges under a name of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .chat_templates import chat_templates
from .folder import TokenizerFolder
from .merges import gguf_merges
from .pre_tokenizers import pre_tokenizer_name
from .rules import read_rules
from .sentencepiece import adds_space_prefix, sentencepiece_pieces
from .special_tokens import name_part, special_tokens, stop_tokens, suppressed_tokens
from .vocabulary import byte_level_pieces, vocabulary


@dataclass(frozen=True)
class GgufTokenizer:
    """The tokenizer metadata of a GGUF file."""

    model: str
    """"gpt2" for byte-level BPE, "llama" for SentencePiece-like tokenizers."""
    pre: str
    """llama.cpp's name for how text is split."""
    tokens: Sequence[str]
    token_types: Sequence[int]
    scores: Sequence[float] | None
    merges: Sequence[str] | None
    special_ids: Mapping[str, int]
    """By role: bos, eos, unk, sep, pad, cls, mask, eot, eom."""
    adds: Mapping[str, bool]
    """Whether the token of a role (bos, eos, sep) is put around a text."""
    add_space_prefix: bool
    chat_templates: Mapping[str, str]
    stop_tokens: Sequence[str]
    """The texts of the tokens that end an answer."""
    suppressed: Sequence[int]
    """Tokens that an answer never has."""
    name_part: str | None
    """What general.name has to contain, if anything: llama.cpp knows some rules by the model's name only."""

    @property
    def chat_template(self) -> str | None:
        """The template for conversations, or None where the folder has none."""
        return self.chat_templates.get("default")

    @property
    def add_bos(self) -> bool:
        return self.adds["bos"]

    @property
    def add_eos(self) -> bool:
        return self.adds["eos"]

    def write(self, writer: Any) -> None:
        """Add the `tokenizer.*` metadata to a gguf.GGUFWriter."""
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.token_types)
        if self.scores is not None:
            writer.add_token_scores(self.scores)
        if self.merges is not None:
            # A GGUF array cannot be empty; an empty merge joins nothing.
            writer.add_token_merges(self.merges or [""])
        for role, id in self.special_ids.items():
            getattr(writer, f"add_{role}_token_id")(id)
        for role, added in self.adds.items():
            getattr(writer, f"add_add_{role}_token")(added)
        writer.add_add_space_prefix(self.add_space_prefix)
        if self.suppressed:
            writer.add_array("tokenizer.ggml.suppress_tokens", self.suppressed)
        if self.chat_templates:
            writer.add_chat_template(
                [{"name": name, "template": text} for name, text in self.chat_templates.items()]
            )


def gguf_tokenizer(folder: Path, vocab_size: int, base: Path | None = None) -> GgufTokenizer:
    """The tokenizer of a model's or adapter's folder.

    Args:
        folder: contains tokenizer.json and related files.
        vocab_size: rows of the embedding matrix; ids that the tokenizer does not use become padding.
        base: the model under an adapter, for the files that the adapter's folder does not have.

    Raises:
        GgufExportError: a part of the tokenizer is not supported; the message names it.
    """
    source = TokenizerFolder(folder, base, vocab_size)
    rules = read_rules(source)
    sentencepiece = bool(source.model.get("byte_fallback"))
    pieces = sentencepiece_pieces(source) if sentencepiece else byte_level_pieces(source)
    words = vocabulary(source, pieces, vocab_size)
    templates = chat_templates(source)
    ids, adds = special_tokens(source, vocab_size)
    return GgufTokenizer(
        model="llama" if sentencepiece else "gpt2",
        pre="default" if sentencepiece else pre_tokenizer_name(rules),
        tokens=words.tokens,
        token_types=words.types,
        scores=words.scores if sentencepiece else None,
        merges=None if sentencepiece else gguf_merges(source),
        special_ids=ids,
        adds=adds,
        add_space_prefix=adds_space_prefix(rules) if sentencepiece else False,
        chat_templates=templates,
        stop_tokens=stop_tokens(source, ids, templates.get("default")),
        suppressed=suppressed_tokens(source, vocab_size),
        name_part=name_part(source),
    )
