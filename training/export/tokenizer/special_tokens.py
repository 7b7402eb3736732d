"""Which tokens begin and end texts and answers."""

from __future__ import annotations

from typing import Any, NamedTuple

from ...errors import GgufExportError
from ...untrusted import shown_path
from .folder import TokenizerFolder
from .rules import OTHER_EXPORT

END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<end_of_turn>", "<|end_of_text|>")
"""Tokens that end an answer although a model's files may name another end of text only."""

ROLES = ("bos", "eos", "unk", "sep", "pad", "mask", "eot", "eom")
"""What a GGUF file can name a token for."""
AROUND = ("bos", "eos", "sep")
KEEP_SPACE_IN_PHI_3 = {"<unk>", "<s>", "<|endoftext|>"}


class SpecialTokens(NamedTuple):
    """Special tokens by role, and what is added to a text."""

    ids: dict[str, int]
    added: dict[str, bool]
    """Whether the tokenizer adds the token of a role (bos, eos, sep) to each text."""


def special_tokens(folder: TokenizerFolder, rows: int) -> SpecialTokens:
    """The roles as Transformers finds them, then as llama.cpp's converter does, then the model's own.

    Raises:
        GgufExportError: the tokenizer puts tokens around a text that GGUF cannot express.
    """
    from gguf import SpecialVocab

    try:
        found = SpecialVocab(folder.path, n_vocab=rows)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise GgufExportError(
            f"The special tokens in {shown_path(folder.path)} cannot be read: {type(error).__name__}.",
            cause=error,
            untrusted=str(error),
        ) from None
    ids: dict[str, int] = {}
    for role in ROLES:
        id = folder.role_id(role)
        if id is None:
            id = found.special_token_ids.get(role, _id_from_config(folder, role))
        if id is not None and id < rows:
            ids[role] = id
    first, last = _around_a_text(folder)
    added = {role: flag for role, flag in found.add_special_token.items() if role in AROUND}
    added |= {"bos": bool(first), "eos": bool(last)}
    for role, tokens in (("bos", first), ("eos", last)):
        if tokens and tokens != [ids.setdefault(role, tokens[0])]:
            raise GgufExportError(
                f"The tokenizer in {shown_path(folder.path)} adds the ids {tokens} to each text; "
                f"a GGUF file can name only one {role} token ({ids[role]}).",
                hint=OTHER_EXPORT,
            )
    return SpecialTokens(ids, added)


def stop_tokens(folder: TokenizerFolder, ids: dict[str, int], chat_template: str | None) -> tuple[str, ...]:
    """The texts of the tokens that end an answer: eos, the model's, and the template's own."""
    stopping = [ids[role] for role in ("eos", "eot", "eom") if role in ids]
    named: Any = folder.model_json("generation_config.json").get("eos_token_id")
    if named is None:
        named = folder.model_json("config.json").get("eos_token_id")
    stopping += [id for id in (named if isinstance(named, list) else [named]) if isinstance(id, int)]  # pyright: ignore[reportUnknownVariableType]
    texts = [folder.tokenizer.id_to_token(id) for id in stopping]
    added = {token.content for token in folder.added_tokens.values()}
    texts += [text for text in END_OF_TURN if chat_template and text in chat_template and text in added]
    return tuple(dict.fromkeys(text for text in texts if text))


def suppressed_tokens(folder: TokenizerFolder, rows: int) -> tuple[int, ...]:
    """The ids that the model's generation never chooses, such as those of pictures that it can only read."""
    named: Any = folder.model_json("generation_config.json").get("suppress_tokens") or ()
    return tuple(id for id in named if isinstance(id, int) and 0 <= id < rows)


def name_part(folder: TokenizerFolder) -> str | None:
    """The name by which llama.cpp knows Phi-3, whose special tokens take white space after them away."""
    added = {token.content: token.rstrip for token in folder.added_tokens.values()}
    keeps = {content for content, strips in added.items() if not strips}
    return "phi-3" if keeps == KEEP_SPACE_IN_PHI_3 and "</s>" in added else None


def _around_a_text(folder: TokenizerFolder) -> tuple[list[int], list[int]]:
    """The ids that the tokenizer puts before and after a text, found by running it."""
    bare: list[int] = folder.tokenizer.encode("a", add_special_tokens=False).ids
    whole: list[int] = folder.tokenizer.encode("a").ids
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[:start], whole[start + len(bare) :]
    raise GgufExportError(
        f"The tokenizer in {shown_path(folder.path)} encodes a text as {whole} with special tokens, "
        f"{bare} without.",
        hint=OTHER_EXPORT,
    )


def _id_from_config(folder: TokenizerFolder, role: str) -> int | None:
    id: Any = folder.model_json("config.json").get(f"{role}_token_id")
    return id if isinstance(id, int) and id >= 0 else None
