"""The rules by which a tokenizer.json splits text, in one form whichever version wrote them.

The tokenizers library reads the file and gives each rule back with all of its settings named, so old and
new files, other orders of keys, and sequences inside sequences come out alike. Neither the vocabulary nor
added tokens play a part: training and resizing leave the rules as they are.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from ...errors import GgufExportError
from ...untrusted import quoted, shown_path
from .folder import TokenizerFolder

Rule = dict[str, Any]

OTHER_EXPORT = "Export the adapter or the merged model instead: both keep the tokenizer's files unchanged."


class Rules(NamedTuple):
    """What happens to a text before its pieces are looked up in the vocabulary, in order."""

    normalizers: list[Rule]
    pre_tokenizers: list[Rule]
    ignore_merges: bool
    """Whether a piece that is in the vocabulary is taken as it is, although merges lead elsewhere."""


def read_rules(folder: TokenizerFolder) -> Rules:
    """The rules of a byte-pair encoding tokenizer.

    Raises:
        GgufExportError: the model is no byte-pair encoding, or marks the pieces of a word.
    """
    model = folder.model
    kind = model.get("type")
    if kind != "BPE":
        raise GgufExportError(
            f"{shown_path(folder.path)} has a {quoted(kind)} tokenizer; only BPE tokenizers can be written "
            "to a GGUF file.",
            hint=OTHER_EXPORT,
        )
    for setting in ("continuing_subword_prefix", "end_of_word_suffix", "dropout"):
        if model.get(setting):
            raise GgufExportError(
                f"{shown_path(folder.path)} has {setting} = {quoted(model[setting])}, which GGUF "
                "does not support.",
                hint=OTHER_EXPORT,
            )
    return Rules(
        _steps(folder.tokenizer.normalizer),
        _steps(folder.tokenizer.pre_tokenizer),
        bool(model.get("ignore_merges", False)),
    )


def split_by(regex: str) -> Rule:
    """The rule that makes each match of `regex` a piece."""
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def _steps(component: Any) -> list[Rule]:
    return [] if component is None else _flat(json.loads(component.__getstate__()))


def _flat(rule: Rule) -> list[Rule]:
    if rule["type"] != "Sequence":
        return [_plain(rule)]
    parts: list[Rule] = rule.get("normalizers") or rule.get("pretokenizers") or []
    return [step for part in parts for step in _flat(part)]


def _plain(rule: Rule) -> Rule:
    """The rule without what has no influence on the tokens."""
    rule = {key: value for key, value in rule.items() if key != "trim_offsets"}
    # "Remove what does not match" keeps the matches: the same, for a regex that matches every character.
    if rule["type"] == "Split" and rule["behavior"] == "Removed" and rule["invert"]:
        rule |= {"behavior": "Isolated", "invert": False}
    return rule
