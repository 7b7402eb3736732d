"""The files of an adapter's or merged model's folder that are published, and what is removed from them.

Only files with known names are published: no checkpoint, log or record of a run leaves the machine. Paths are
removed from configurations. A file that seems to contain an access token is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import HubPushError
from ...files.atomic_json import JSON_BYTES, read_json
from ...files.paths import MORE_TEMPLATES
from ...files.regular_file import read_regular
from ...models.model_folder import ADAPTER_FILES, FolderForm, folder_form
from ...redact import looks_secret
from ...untrusted import short_name
from .model_card import bare_card, is_local, shown_base, without_local_base
from .private_paths import json_without_paths, without_paths

CARD = "README.md"
NAMES = frozenset(
    {
        *ADAPTER_FILES,
        *("config.json", "generation_config.json", "model.safetensors", "model.safetensors.index.json"),
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
        *("vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model"),
        *("chat_template.jinja", CARD, "LICENSE", "NOTICE"),
    }
)
SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
WEIGHTS = re.compile(r".*\.(safetensors|bin|gguf|pt|pth|ckpt|h5|msgpack|onnx)(\.index\.json)?")
PATH_KEYS = frozenset({"base_model_name_or_path", "_name_or_path", "name_or_path"})
OF_THIS_MACHINE = frozenset({"is_local", "local_files_only"})
"""How transformers loaded a tokenizer on this machine; wrong on others."""
READABLE_BYTES = 1 << 20
"""Smaller files that are not weights are looked through for secrets; a tokenizer's vocabulary is larger."""


@dataclass(frozen=True)
class PublishedFile:
    """One file under the name that it gets, and its content: the path of weights, the bytes of others."""

    name: str
    content: Path | bytes

    @property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    def data(self) -> bytes:
        """The whole content; of weights this may be gigabytes."""
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()

    @property
    def is_weights(self) -> bool:
        return self.name.endswith(".safetensors")


def published_files(folder: Path, permit: Callable[[Path], object]) -> list[PublishedFile]:
    """The files of a folder that are published, with a card where the folder has none.

    Args:
        permit: raises PathForbiddenError for a file that may not be read; links are followed first.

    Raises:
        InputError: the folder holds neither an adapter nor a merged model.
        HubPushError: a file seems to contain an access token.
    """
    form = folder_form(folder)
    base = _base(folder, form)
    files = [_published(path, permit, base) for path in sorted(folder.iterdir()) if _is_known(path, form)]
    files += _more_templates(folder / MORE_TEMPLATES, permit)
    if not (folder / CARD).is_file():
        files.append(PublishedFile(CARD, bare_card(base, form).encode()))
    for file in files:
        _refuse_secrets(file)
    return files


def _is_known(path: Path, form: FolderForm) -> bool:
    """An adapter's folder may hold a model too, and the other way round; one of them is published."""
    of_the_other = path.name.startswith("model") if form == "adapter" else path.name in ADAPTER_FILES
    known = path.name in NAMES or SHARD.fullmatch(path.name)
    return bool(known) and not of_the_other and path.is_file()


def _more_templates(folder: Path, permit: Callable[[Path], object]) -> list[PublishedFile]:
    """The chat templates besides the one for conversations, as transformers finds them."""
    paths = sorted(path for path in folder.glob("*.jinja") if path.is_file())
    for path in paths:
        permit(path)
    return [PublishedFile(f"{folder.name}/{path.name}", path) for path in paths]


def _published(path: Path, permit: Callable[[Path], object], base: str | None) -> PublishedFile:
    permit(path)
    if path.name == CARD:
        return _card(path, base)
    if path.suffix == ".safetensors":
        return PublishedFile(path.name, path)
    if path.suffix != ".json" or path.stat().st_size > READABLE_BYTES:
        # Read once: the file that is looked through is the one that is sent.
        return PublishedFile(path.name, read_regular(path, JSON_BYTES))
    config = read_json(path)
    kept = {key: value for key, value in config.items() if key not in OF_THIS_MACHINE}
    shown = {key: _without_path(key, value) for key, value in kept.items()}
    content = path.read_bytes() if shown == config else json.dumps(shown, indent=1).encode()
    return PublishedFile(path.name, content)


def _card(path: Path, base: str | None) -> PublishedFile:
    """The card, without the paths that other programs write into theirs."""
    written = path.read_text("utf-8", "replace")
    known = [str(path.parent), str(path.parent.resolve()), *([base] if base and is_local(base) else [])]
    shown = without_paths(without_local_base(written), known)
    return PublishedFile(CARD, shown.encode())


def _without_path(key: str, value: Any) -> Any:
    if key in PATH_KEYS and isinstance(value, str) and is_local(value):
        return shown_base(value)
    return json_without_paths(value)


def _base(folder: Path, form: FolderForm) -> str | None:
    """The base's name, if the folder contains it."""
    base = read_json(folder / ADAPTER_FILES[0]).get("base_model_name_or_path") if form == "adapter" else None
    return base if isinstance(base, str) else None


def _refuse_secrets(file: PublishedFile) -> None:
    if file.is_weights or file.size > READABLE_BYTES:
        return
    if looks_secret(file.data().decode("utf-8", "replace")):
        raise HubPushError(
            f"{short_name(file.name)} seems to contain an access token or a key; nothing was uploaded.",
            hint=f"Remove it from {short_name(file.name)}.",
        )
