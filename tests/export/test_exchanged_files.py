"""A file of a model or an adapter that is exchanged for a link after it was permitted goes nowhere."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from backpropagate.training.config.settings import load_settings
from backpropagate.training.config.specs import AnySpec
from backpropagate.training.errors import InputError, PathForbiddenError
from backpropagate.training.events import Event, Phase
from backpropagate.training.files.paths import PathPolicy
from backpropagate.training.files.permitted_folders import PermittedFolders
from backpropagate.training.files.regular_file import open_permitted
from backpropagate.training.requests.export import export_spec
from backpropagate.training.requests.inspect import inspect_spec
from backpropagate.training.requests.train import train_spec
from backpropagate.training.runs.folder import RunFolder
from backpropagate.training.runs.store import RunStore
from backpropagate.training.worker import export, inspect, train
from backpropagate.training.worker.in_process import Execute, run_in_process

SECRET = "TOPSECRETKEY"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    key = tmp_path / ".ssh/id_ed25519"
    key.parent.mkdir()
    key.write_text(f"{{% set key = '{SECRET}' %}}")
    return key


def exchanging(phase: str, path: Path, secret: Path) -> Callable[[Event], None]:
    """A listener that makes `path` a link when a run reaches a phase."""

    def listen(event: Event) -> None:
        if isinstance(event, Phase) and event.phase == phase and not path.is_symlink():
            path.unlink()
            path.symlink_to(secret)

    return listen


def refused(home: Path, execute: Execute, spec: AnySpec, listen: Callable[[Event], None]) -> None:
    store = RunStore(home)
    run = store.create(spec)
    with pytest.raises(PathForbiddenError, match="a link in"):
        run_in_process(execute, run, store, home.parent / "runtime", listen)
    made = [path for path in home.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert not made
    assert not (run.path / "adapter").exists() and not list((run.path / "export").glob("[!.]*"))


@pytest.mark.parametrize("execute, make", [(inspect.run, inspect_spec), (train.run, train_spec)])
def test_a_template_that_is_exchanged_while_the_tokenizer_loads_ends_the_run(
    home: Path,
    dataset: Path,
    tiny_model: Path,
    secret: Path,
    tmp_path: Path,
    execute: Execute,
    make: Callable[..., AnySpec],
) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    spec = make(load_settings(), arguments={"dataset": str(dataset), "model": str(model), "train_on": "all"})
    refused(home, execute, spec, exchanging("loading", model / "chat_template.jinja", secret))


@pytest.mark.parametrize("format", ["merged", "lora", "gguf"])
def test_an_adapters_file_that_is_exchanged_while_it_is_exported_is_in_no_export(
    home: Path, copied_run: Callable[[str], RunFolder], secret: Path, tmp_path: Path, format: str
) -> None:
    adapter = Path(shutil.copytree(copied_run("").adapter_path, tmp_path / "adapter"))
    config = json.loads((adapter / "adapter_config.json").read_text())
    base = Path(shutil.copytree(config["base_model_name_or_path"], tmp_path / "base"))
    config["base_model_name_or_path"] = str(base)
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    quantization = {"quantization": "f16"} if format == "gguf" else {}
    spec = export_spec(
        str(adapter),
        RunStore(home),
        PathPolicy.for_person(home),
        format=format,  # pyright: ignore[reportArgumentType]
        **quantization,
    )
    refused(home, export.run, spec, exchanging("writing", adapter / "chat_template.jinja", secret))


def test_a_file_that_was_exchanged_and_put_back_is_noticed(tmp_path: Path, secret: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "chat_template.jinja").write_text("{{ messages }}")
    folders = PermittedFolders(PathPolicy.for_person(tmp_path / "home"))
    folders.permit(model, "model")
    folders.require_unchanged()
    (model / "new.json").write_text("{}")
    folders.require_unchanged()
    os.replace(model / "chat_template.jinja", tmp_path / "kept")
    (model / "chat_template.jinja").symlink_to(secret)
    (model / "chat_template.jinja").unlink()
    (model / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(InputError, match=r"chat_template\.jinja was exchanged"):
        folders.require_unchanged()


def test_a_permitted_file_is_opened_through_no_link(tmp_path: Path, secret: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    path = tmp_path / "a/b/id_ed25519"
    path.write_text("mine")
    with open(open_permitted(path.resolve())) as file:
        assert file.read() == "mine"
    with pytest.raises(ValueError, match="not a regular file"):
        open_permitted(path.parent.resolve())
    real = path.resolve()
    path.unlink()
    with pytest.raises(FileNotFoundError):
        open_permitted(real)
    path.symlink_to(secret)
    with pytest.raises(ValueError, match="become a link"):
        open_permitted(real)
    path.unlink()
    path.parent.rmdir()
    path.parent.symlink_to(secret.parent)
    with pytest.raises(ValueError, match="become a link"):
        open_permitted(real)
