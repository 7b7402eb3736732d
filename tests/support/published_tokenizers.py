"""Folders with the tokenizers of published models, put together from what can be had without the Hub.

llama.cpp's source archive has their vocabularies as GGUF files; how the text is split is known from their
tokenizer.json files. llama.cpp's own test vectors prove that the result is the published tokenizer.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backpropagate.training.export.gguf.reader import read_metadata
from backpropagate.training.export.tokenizer.sentencepiece_model import read_pieces

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_2 = LLAMA_3.replace(r"\p{N}{1,3}|", r"\p{N}|")
QWEN_3_5 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT_4O = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
HUNYUAN = (
    r"\p{N}{1,3}",
    "[一-龥\u3040-\u309f\u30a0-\u30ff]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)

BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
WORDS = BYTES | {"use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}
PREPEND = {"type": "Prepend", "prepend": "▁"}
ESCAPE = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
NO_SPACE_LEFT = {
    "type": "Split",
    "pattern": {"String": " "},
    "behavior": "MergedWithPrevious",
    "invert": False,
}

DECODERS = {
    False: WORDS,
    True: {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
        ],
    },
}
"""By whether there is a token for each byte."""

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6


def split(regex: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


RULES: dict[str, dict[str, Any]] = {
    "llama-bpe": {"pre_tokenizers": [split(LLAMA_3), BYTES], "ignore_merges": True},
    "qwen2": {"normalizers": [{"type": "NFC"}], "pre_tokenizers": [split(QWEN_2), BYTES]},
    "qwen35": {"normalizers": [{"type": "NFC"}], "pre_tokenizers": [split(QWEN_3_5), BYTES]},
    "gpt-2": {"pre_tokenizers": [WORDS]},
    "llama-spm": {"normalizers": [PREPEND, ESCAPE]},
    "phi-3": {"normalizers": [PREPEND, ESCAPE]},
    "gemma-4": {"normalizers": [ESCAPE], "pre_tokenizers": [NO_SPACE_LEFT]},
}


KEEP_SPACE = ("<unk>", "<s>", "<|endoftext|>")
ROLES = [("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")]


def build_from_gguf(gguf: Path, folder: Path, name: str) -> Path:
    """The tokenizer of one of llama.cpp's `ggml-vocab-{name}.gguf` as a model folder."""
    metadata = {key.removeprefix("tokenizer.ggml."): value for key, value in read_metadata(gguf).items()}
    tokens: list[str] = metadata["tokens"]
    types: list[int] = metadata["token_type"]
    plain = [id for id, kind in enumerate(types) if kind in (NORMAL, BYTE)]
    vocab = {token: id for id, token in enumerate(tokens[: plain[-1] + 1])}
    added = {
        id: (token, kind != USER_DEFINED)
        for id, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in (UNKNOWN, CONTROL, USER_DEFINED) and not token.startswith("[PAD")
    }
    merges = metadata.get("merges")
    if merges is None:
        merges = merges_by_score(dict(zip(tokens, metadata["scores"], strict=True)), vocab)
    special = {
        role: tokens[metadata[f"{key}_token_id"]] for role, key in ROLES if f"{key}_token_id" in metadata
    }
    write_folder(
        folder,
        vocab=vocab,
        merges=[merge.split(" ", 1) if isinstance(merge, str) else list(merge) for merge in merges],
        added=added,
        special=special,
        byte_fallback="scores" in metadata,
        bos=special["bos"] if metadata.get("add_bos_token", name == "llama-bpe") else None,
        rstrip=[token for token, _ in added.values() if token not in KEEP_SPACE] if name == "phi-3" else [],
        **RULES[name],
    )
    return folder


def build_from_sentencepiece(model: Path, folder: Path) -> Path:
    """The tokenizer of a tokenizer.model of Mistral's as a model folder, the file itself beside it."""
    pieces = read_pieces(model)
    vocab = {piece.text: piece.id for piece in pieces}
    write_folder(
        folder,
        vocab=vocab,
        merges=merges_by_score({piece.text: piece.score for piece in pieces}, vocab),
        added={piece.id: (piece.text, True) for piece in pieces if piece.type in (UNKNOWN, CONTROL)},
        special={"bos": "<s>", "eos": "</s>", "unk": "<unk>"},
        byte_fallback=True,
        bos="<s>",
        normalizers=[PREPEND, ESCAPE],
    )
    shutil.copyfile(model, folder / "tokenizer.model")
    return folder


def build_from_ranks(
    ranks: Sequence[bytes], folder: Path, special: Sequence[str], pre_tokenizers: Any, *, special_first: bool
) -> Path:
    """A tiktoken-like tokenizer (tokens by rank, no merges) as a model folder, as transformers makes it."""
    shown = bytes_to_characters()
    offset = len(special) if special_first else 0
    rank = {"".join(shown[byte] for byte in token): place for place, token in enumerate(ranks)}
    merges = [
        way
        for token in rank
        for way in sorted(
            (
                (token[:at], token[at:])
                for at in range(1, len(token))
                if token[:at] in rank and token[at:] in rank
            ),
            key=lambda way: (rank[way[0]], rank[way[1]]),
        )
    ]
    first_special = 0 if special_first else len(rank)
    numbered = {token: first_special + place for place, token in enumerate(special)}
    return write_folder(
        folder,
        vocab=numbered | {token: place + offset for token, place in rank.items()},
        merges=merges,
        added={id: (token, True) for token, id in numbered.items()},
        special={"bos": special[1], "eos": special[2]},
        bos=special[1],
        pre_tokenizers=pre_tokenizers,
        ignore_merges=True,
    )


def bytes_to_characters() -> dict[int, str]:
    """GPT-2's alphabet: a printable character for each byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def merges_by_score(scores: dict[str, float], vocab: dict[str, int]) -> list[tuple[str, str]]:
    """All ways to put a piece together of two, the highest score first: so transformers makes merges."""
    found = [
        (score, len(left), len(right), left, right)
        for token, score in scores.items()
        if token in vocab
        for at in range(1, len(token))
        if (left := token[:at]) in vocab and (right := token[at:]) in vocab
    ]
    found.sort(key=lambda way: way[:3], reverse=True)
    return [(left, right) for *_, left, right in found]


def write_folder(
    folder: Path,
    *,
    vocab: dict[str, int],
    merges: Sequence[Any],
    added: dict[int, tuple[str, bool]],
    special: dict[str, str],
    normalizers: Sequence[dict[str, Any]] = (),
    pre_tokenizers: Sequence[dict[str, Any]] = (),
    ignore_merges: bool = False,
    byte_fallback: bool = False,
    bos: str | None = None,
    rstrip: Sequence[str] = (),
) -> Path:
    """A tokenizer.json and tokenizer_config.json as published models have them.

    Args:
        added: by id, text and whether it is special.
        special: texts by role (bos, eos, unk, pad).
        bos: the token that the tokenizer puts before each text.
        rstrip: the added tokens that take the white space after them away.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ids = vocab | {token: id for id, (token, _special) in added.items()}
    flags_of = {id: _flags(token, special, token in rstrip) for id, (token, special) in added.items()}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": id, **flags} for id, flags in sorted(flags_of.items())],
        "normalizer": _sequence("normalizers", normalizers),
        "pre_tokenizer": _sequence("pretokenizers", pre_tokenizers),
        "post_processor": _starts_with(bos, ids[bos]) if bos else None,
        "decoder": DECODERS[byte_fallback],
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": special.get("unk") if byte_fallback else None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": byte_fallback,
            "byte_fallback": byte_fallback,
            "ignore_merges": ignore_merges,
            "vocab": vocab,
            "merges": merges,
        },
    }
    config: dict[str, Any] = {f"{role}_token": token for role, token in special.items()}
    config["added_tokens_decoder"] = {str(id): flags for id, flags in flags_of.items()}
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def _flags(token: str, special: bool, rstrip: bool) -> dict[str, Any]:
    no = {"single_word": False, "lstrip": False, "normalized": False}
    return {"content": token, "special": special, "rstrip": rstrip, **no}


def _sequence(key: str, steps: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    if len(steps) < 2:
        return dict(steps[0]) if steps else None
    return {"type": "Sequence", key: list(steps)}


def _starts_with(token: str, id: int) -> dict[str, Any]:
    bos, text = {"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    second = {"Sequence": {"id": "B", "type_id": 1}}
    return {
        "type": "TemplateProcessing",
        "single": [bos, text],
        "pair": [bos, text, second],
        "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]}},
    }
