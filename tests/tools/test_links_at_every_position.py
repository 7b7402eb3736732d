"""Each file argument of each door, with a link to a forbidden place at each position of its path."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backpropagate import inspect_dataset as inspect_in_python
from backpropagate.tools.context import ToolContext
from backpropagate.tools.export_gguf import export_gguf
from backpropagate.tools.generate import generate
from backpropagate.tools.inspect_dataset import inspect_dataset
from backpropagate.tools.push_to_hub import push_to_hub
from backpropagate.tools.register_ollama import register_ollama
from backpropagate.tools.train import train
from backpropagate.training.config.settings import load_settings
from backpropagate.training.errors import PathForbiddenError
from backpropagate.training.files.paths import PathPolicy
from backpropagate.training.service import TrainingService

SECRET = "TOPSECRET"
FORBIDDEN = (".ssh", ".hidden", "Library/keychains", "../outside")
CREDENTIALS = (".ssh", "Library/keychains")
"""Refused to a person too."""

MODEL_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors", "notes.txt")
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "chat_template.jinja")


async def _nothing(_: object) -> None: ...


@dataclass(frozen=True)
class Place:
    """A scratch home with a permitted dataset and model, and how the doors are called."""

    user: Path
    data: Path
    model: Path

    def tool(self, function: Callable[..., Any], **arguments: Any) -> object:
        service = TrainingService(load_settings())
        paths = PathPolicy.for_assistant([], service.settings.home)
        context = ToolContext(service, paths, _nothing)
        return anyio.run(lambda: function(context, **arguments))

    def service(self, **arguments: Any) -> object:
        return anyio.run(lambda: TrainingService(load_settings()).train(**arguments))


Door = Callable[[Place, str], object]
DOORS: dict[str, tuple[str, bool, Door]] = {
    # name: what the argument is, whether a person calls it, the call
    "inspect file": (
        "rows.jsonl",
        False,
        lambda p, s: p.tool(inspect_dataset, dataset=s, model=str(p.model)),
    ),
    "inspect list": ("rows.jsonl", False, lambda p, s: p.tool(inspect_dataset, dataset=[str(p.data), s])),
    "inspect folder": ("rows", False, lambda p, s: p.tool(inspect_dataset, dataset=s, model=str(p.model))),
    "inspect pattern": ("rows", False, lambda p, s: p.tool(inspect_dataset, dataset=f"{s}/*.jsonl")),
    "inspect model": ("model", False, lambda p, s: p.tool(inspect_dataset, dataset=str(p.data), model=s)),
    "train dataset": ("rows.jsonl", False, lambda p, s: p.tool(train, dataset=s, model=str(p.model))),
    "train model": ("model", False, lambda p, s: p.tool(train, dataset=str(p.data), model=s)),
    "train output": (
        "new",
        False,
        lambda p, s: p.tool(train, dataset=str(p.data), model=str(p.model), output=s),
    ),
    "export model": ("model", False, lambda p, s: p.tool(export_gguf, source=s)),
    "export adapter": ("adapter", False, lambda p, s: p.tool(export_gguf, source=s)),
    "export output": ("new", False, lambda p, s: p.tool(export_gguf, source=str(p.model), output=s)),
    "generate model": ("model", False, lambda p, s: p.tool(generate, source=s, prompts=["Hi"])),
    "generate adapter": ("adapter", False, lambda p, s: p.tool(generate, source=s, prompts=["Hi"])),
    "push adapter": ("adapter", False, lambda p, s: p.tool(push_to_hub, run_id=s, repo="a/b")),
    "push model": ("model", False, lambda p, s: p.tool(push_to_hub, run_id=s, repo="a/b")),
    "register": ("model.gguf", False, lambda p, s: p.tool(register_ollama, name="x", path=s)),
    "python inspect": ("rows.jsonl", True, lambda p, s: inspect_in_python(s)),
    "python inspect model": ("model", True, lambda p, s: inspect_in_python(p.data, s)),
    "python train": ("rows.jsonl", True, lambda p, s: p.service(dataset=s, model=str(p.model))),
    "python train model": ("model", True, lambda p, s: p.service(dataset=str(p.data), model=s)),
}


def make(folder: Path, what: str, model: Path) -> None:
    """What an argument may name: rows, a folder of rows, a model, an adapter or a GGUF."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / what
    match what:
        case "model":
            shutil.copytree(model, path)
            (path / "notes.txt").write_text(SECRET)
        case "adapter":
            path.mkdir()
            (path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(model)}))
            for name in ADAPTER_FILES[1:]:
                (path / name).write_text(SECRET)
        case "rows":
            path.mkdir()
            (path / "a.jsonl").write_text(json.dumps({"text": SECRET}))
        case "new":
            pass
        case _:
            path.write_text(json.dumps({"text": SECRET}))


def inside(what: str) -> tuple[str, ...]:
    """The files of a folder, each of which may be the link."""
    return {"model": MODEL_FILES, "adapter": ADAPTER_FILES, "rows": ("a.jsonl",)}.get(what, ())


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(data=st.data())
def test_a_link_at_any_position_of_a_files_path_is_not_followed_out_of_what_is_permitted(
    data: st.DataObject,
    home: Path,
    tiny_model: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        user = tmp_path_factory.mktemp("user") / "me"
        for name in ("HOME", "USERPROFILE"):
            patch.setenv(name, str(user))
        patch.setenv("BACKPROPAGATE_HOME", str(user / ".backpropagate"))
        make(user / "fine", "rows.jsonl", tiny_model)
        shutil.copytree(tiny_model, user / "fine/model")
        place = Place(user, user / "fine/rows.jsonl", user / "fine/model")

        what, by_person, door = DOORS[data.draw(st.sampled_from(sorted(DOORS)), label="door")]
        secret = user / data.draw(st.sampled_from(CREDENTIALS if by_person else FORBIDDEN), label="secret")
        way = ["one", "two", what]
        files = inside(what)
        last = len(way) if files else len(way) - 1
        position = data.draw(st.integers(0, last if what != "new" else 1), label="position")
        make(secret / "one/two", what, tiny_model)
        if position == len(way):
            make(user / "way/one/two", what, tiny_model)
            way.append(data.draw(st.sampled_from(files), label="file"))
            user.joinpath("way", *way).unlink()
        link = user.joinpath("way", *way[: position + 1])
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(secret.joinpath(*way[: position + 1]))

        with pytest.raises(PathForbiddenError) as error:
            door(place, str(user / "way/one/two" / what))
        assert SECRET not in error.value.sentence()
        assert not list((user / ".backpropagate").glob("runs/*/spec.json"))
