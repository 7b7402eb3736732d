"""What a repository holds already, and what of it a push may replace."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from ...errors import HubPushError
from ...models.model_folder import ADAPTER_FILES
from ...next_step import then
from ...untrusted import short_name
from .own_card import is_unchanged
from .published_files import CARD, WEIGHTS, PublishedFile


class Existing:
    """An existing repository.

    Args:
        found: the Hub's description of it.
        text_of: the text of one of its files, or None if it cannot be had.
    """

    def __init__(self, found: Any, text_of: Callable[[str], str | None]) -> None:
        siblings: list[Any] = found.siblings or []
        self.names: list[str] = [sibling.rfilename for sibling in siblings]
        self._card_data: Any = found.card_data
        self._text_of = text_of

    def base(self) -> object:
        """The base that its card names, or else its adapter."""
        named = self._card_data.get("base_model") if self._card_data else None
        if named is not None or ADAPTER_FILES[0] not in self.names:
            return named
        try:
            config: Any = json.loads(self._text_of(ADAPTER_FILES[0]) or "{}")
            return config.get("base_model_name_or_path")
        except (ValueError, AttributeError):  # what others wrote
            return None

    def has_a_card_of_somebody(self, files: Sequence[PublishedFile]) -> bool:
        """Whether it has a card that this program did not write, or that was edited since."""
        if CARD not in self.names:
            return False
        text = self._text_of(CARD)
        ours = next(file for file in files if file.name == CARD).data()
        return text is None or not (is_unchanged(text) or text.encode() == ours)


def check_visibility(found: Any, repo: str, private: bool) -> None:
    """An existing repository keeps its visibility; nothing private is published in a public one.

    Raises:
        HubPushError: it is public, and `private` was asked for.
    """
    if private and not found.private:
        raise HubPushError(
            f"{repo} is public, and a private repository was requested; nothing was uploaded.",
            hint="Push to another repository, or allow a public one.",
            next=then("ask_again", private=False),
        )


def replaced_weights(
    existing: Existing, files: Sequence[PublishedFile], repo: str, overwrite: bool
) -> list[Any]:
    """Deletions of the weights that the repository holds beside these files.

    Raises:
        HubPushError: it has other weights, or those of another base, and `overwrite` is off.
    """
    from huggingface_hub import CommitOperationDelete

    weights = [name for name in existing.names if WEIGHTS.fullmatch(name)]
    others = sorted(set(weights) - {file.name for file in files})
    if weights and not overwrite:
        _require_same_model(existing, others, files, repo)
    return [CommitOperationDelete(name) for name in others]


def _require_same_model(
    existing: Existing, others: Sequence[str], files: Sequence[PublishedFile], repo: str
) -> None:
    theirs = None if others else existing.base()
    if not others and theirs in _bases(files):
        return
    made_from = "an unknown base" if theirs is None else short_name(theirs)
    what = short_name(others[0]) if others else f"a model made from {made_from}"
    raise HubPushError(
        f"{repo} contains other weights: {what}. Nothing was uploaded.",
        hint="Push to another repository, or replace its weights.",
        next=then("ask_again", overwrite=True),
    )


def _bases(files: Sequence[PublishedFile]) -> list[object]:
    """The base as the card names it, and as the adapter does."""
    from huggingface_hub import ModelCard

    contents = {file.name: file.data() for file in files if not file.is_weights}
    card = ModelCard(contents[CARD].decode("utf-8", "replace"), ignore_metadata_errors=True)
    bases: list[object] = [card.data.get("base_model")]
    if ADAPTER_FILES[0] in contents:
        bases.append(json.loads(contents[ADAPTER_FILES[0]]).get("base_model_name_or_path"))
    return bases
