"""docs/run-folder.md and docs/architecture.md say what the code does, and name only files that exist."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from inspect import cleandoc
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from generated_parts import assert_up_to_date
from pydantic import BaseModel

from backpropagate import Trainer
from backpropagate.training.config.results import Result
from backpropagate.training.events import EVENTS, PHASES, Event
from backpropagate.training.runs.folder import RunFolder, RunState, Status
from backpropagate.training.runs.kinds import KINDS

ROOT = Path(__file__).parents[1]
RUN_FOLDER = ROOT / "docs" / "run-folder.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
JOINED = re.compile(r"""(?:self|run|part|context\.run)\.path / "([^"]+)"|_record\("([^"]+)"\)""")
PATH = re.compile(r"[\w.-]+/[\w./-]*|\w[\w-]*\.(?:py|md|toml|txt)")
HEAVY = ("torch", "transformers", "datasets", "numpy")
WRITTEN_TO = ("events.jsonl", "state.json", "spec.json", "plan.json", "parts.json", "control.json")


# --- The tables of docs/run-folder.md. ---
def test_the_tables_have_every_kind_and_field_and_no_other() -> None:
    """Set UPDATE_SNAPSHOTS=1 to write them anew, and read the diff."""
    results = {name: kind.result for name, kind in KINDS.items()}
    nested = records([*results.values(), *EVENTS.values()])
    parts = {
        "events": table("kind", Event, EVENTS),
        "results": table("kind", Result, results),
        "records": table("record", None, {model.__name__: model for model in nested}),
        "state": table("file", None, {"state.json": RunState}),
    }
    assert_up_to_date(RUN_FOLDER, parts)


def table(title: str, base: type[BaseModel] | None, models: dict[str, type[BaseModel]]) -> list[str]:
    """One row per model with its meaning, and one row per field of its own."""
    shared = field_rows("every kind", base) if base else []
    rows = [row for name, model in models.items() for row in [heading(name, model), *field_rows(name, model)]]
    return [f"| {title} | field | type | meaning |", "|---|---|---|---|", *shared, *rows]


def heading(name: str, model: type[BaseModel]) -> str:
    return f"| **`{name}`** | | | {meaning(model)} |"


def field_rows(name: str, model: type[BaseModel]) -> list[str]:
    meanings = argument_meanings(model)
    own = (field for field in model.model_fields if field in model.__annotations__)
    first = f"`{name}`" if " " not in name else name
    types = {field: shown(info.annotation) for field, info in model.model_fields.items()}
    return [
        f"| {first} | `{field}` | `{types[field]}` | {meanings.get(field, '')} |"
        for field in own
        if field != "kind" or model is Event or not issubclass(model, Event | Result)  # it is the name
    ]


def meaning(model: type[BaseModel]) -> str:
    """The docstring before `Args:`, in one line."""
    return " ".join(cleandoc(model.__doc__ or "").split("\n\nArgs:")[0].split()).replace("|", "\\|")


def argument_meanings(model: type[BaseModel]) -> dict[str, str]:
    """Argument → its meaning, as the docstring's `Args:` say it."""
    arguments = cleandoc(model.__doc__ or "").partition("\nArgs:\n")[2]
    items = re.findall(r"^ {4}(\w[\w, ]*): (.*(?:\n {8}.*)*)", arguments, re.MULTILINE)
    return {
        name: " ".join(text.split()).replace("|", "\\|")
        for names, text in items
        for name in names.split(", ")
    }


def shown(annotation: Any) -> str:
    """A type as it is written in Python, without modules and metadata."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return shown(arguments[0])
    if origin is Literal:
        return " \\| ".join(map(json.dumps, arguments))
    if origin in (Union, UnionType):
        return " \\| ".join(map(shown, arguments))
    if origin is not None:
        return f"{origin.__name__}[{', '.join(map(shown, arguments))}]"
    return "None" if annotation is NoneType else annotation.__name__


def records(models: Iterable[type[BaseModel]]) -> list[type[BaseModel]]:
    """What these models consist of, in the order in which it is met."""
    found: dict[type[BaseModel], None] = {}
    waiting = [*models]
    while waiting:
        fields = waiting.pop(0).model_fields.values()
        new = [part for field in fields for part in parts_of(field.annotation) if part not in found]
        found |= dict.fromkeys(new)
        waiting += new
    return list(found)


def parts_of(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in parts_of(argument)]


def test_the_statuses_and_transitions_are_those_of_the_code() -> None:
    page = RUN_FOLDER.read_text(encoding="utf-8")
    statuses = re.findall(r"^\| `(\w+)` \|", section(page, "Status"), re.MULTILINE)
    assert statuses == [status.value for status in Status]
    transitions = re.findall(r"^\| (.+?) \| (.+?) \|", section(page, "Transitions"), re.MULTILINE)[2:]
    named = {name for row in transitions for cell in row for name in re.findall(r"`(\w+)`", cell)}
    assert named == set(statuses)


def test_the_phases_are_those_of_the_code() -> None:
    page = RUN_FOLDER.read_text(encoding="utf-8")
    phases = re.findall(r"^\| `(\w+)` \|", section(page, "Phases"), re.MULTILINE)
    assert phases == list(PHASES)


def section(page: str, title: str) -> str:
    return re.split(rf"^##+ {title}\n", page, flags=re.MULTILINE)[1].split("\n#")[0]


# --- The files of a run folder. ---
def named_files() -> set[str]:
    """The first cells of the table of files."""
    files = section(RUN_FOLDER.read_text(encoding="utf-8"), "Files")
    cells = re.findall(r"^\| (`.+?`) \|", files, re.MULTILINE)
    return {name.rstrip("/") for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_every_file_that_the_code_writes_into_a_run_folder_is_named() -> None:
    sources = [*(ROOT / "training/runs").glob("*.py"), *(ROOT / "training/worker").glob("*.py")]
    code = "\n".join(source.read_text(encoding="utf-8") for source in sources)
    joined = {first or second for first, second in JOINED.findall(code)}
    assert joined > {*WRITTEN_TO, "adapter", "checkpoints", "worker.lock", "worker.log", ".ballast"}
    assert joined <= named_files()


def test_every_file_of_a_real_run_is_named(home: Path, tiny_model: Path, dataset: Path) -> None:
    trained = Trainer(str(tiny_model), checkpoint_every_steps=1).train(dataset, steps=2)
    there = {entry.name for entry in trained.run_folder.iterdir()}
    assert there >= {"adapter", "checkpoints", "provenance.json", "worker.lock"}
    assert there <= named_files()
    assert RunFolder(trained.run_folder).state().status is Status.COMPLETED
    assert {entry.name for entry in home.iterdir()} <= home_folders()


def home_folders() -> set[str]:
    text = section(RUN_FOLDER.read_text(encoding="utf-8"), "Beside runs/")
    return {"runs", *(name.rstrip("/") for name in re.findall(r"^\| `([\w.]+/?)", text, re.MULTILINE))}


# --- Paths in pages for those who carry on. ---
def test_every_path_named_in_the_architecture_exists() -> None:
    paths = paths_in(ARCHITECTURE)
    assert len(paths) > 50
    for path in paths:
        assert (ROOT / path).exists(), path


def test_every_path_of_the_repository_named_in_the_run_folders_page_exists() -> None:
    paths = [path for path in paths_in(RUN_FOLDER) if path.startswith("training/")]
    assert paths and all((ROOT / path).exists() for path in paths)


@pytest.mark.parametrize("page", ["AGENTS.md", "CONTRIBUTING.md"])
def test_every_path_named_for_contributors_exists(page: str) -> None:
    paths = paths_in(ROOT / page)
    assert len(paths) > 5
    for path in paths:  # AGENTS.md leaves `training/` out after the first of a row
        assert (ROOT / path).exists() or (ROOT / "training" / path).exists(), path


def paths_in(page: Path) -> list[str]:
    """The paths in the page's inline code."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    spans = re.findall(r"`([^`\n]+)`", text)
    return [path for span in spans for path in PATH.findall(span) if "://" not in span]


def test_the_map_names_every_package_of_the_first_two_levels() -> None:
    named = {path.rstrip("/") for path in paths_in(ARCHITECTURE)}
    packages = project()["tool"]["setuptools"]["packages"]
    folders = [name.removeprefix("backpropagate.").replace(".", "/") for name in packages if "." in name]
    assert {folder for folder in folders if folder.count("/") < 2} <= named


def test_light_files_are_imported_without_a_heavy_library() -> None:
    rows = re.findall(r"^\| (`.+`) \|.*\| yes \|$", ARCHITECTURE.read_text(encoding="utf-8"), re.MULTILINE)
    names = [name.rstrip("/") for row in rows for name in re.findall(r"`([^`]+)`", row)]
    files = [file for name in names for file in (ROOT / name).rglob("*.py")]
    files += [ROOT / name for name in names if name.endswith(".py")]
    modules = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    imports = "\n".join(f"import backpropagate.{name.removesuffix('.__init__')}" for name in modules)
    program = f"{imports}\nimport sys\nprint([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert len(modules) > 100 and done.stdout == "[]\n"


def test_the_layers_are_those_that_lint_imports_checks() -> None:
    """Set UPDATE_SNAPSHOTS=1 to write them anew, and read the diff."""
    assert_up_to_date(ARCHITECTURE, {"layers": layers()})


def layers() -> list[str]:
    """One row per contract: the rooms, highest first."""
    contracts = [each for each in project()["tool"]["importlinter"]["contracts"] if each["type"] == "layers"]
    rows = [f"| {place_of(each)} | {' > '.join(map(plain, each['layers']))} |" for each in contracts]
    return [
        "| in | each room imports only rooms to its right; rooms joined by `,` do not import each other |",
        "|---|---|",
        *rows,
    ]


def place_of(contract: dict[str, Any]) -> str:
    container = contract.get("containers", ["backpropagate"])[0]
    inside = container.removeprefix("backpropagate").lstrip(".").replace(".", "/")
    return f"`{inside}/`" if inside else "the package"


def plain(layer: str) -> str:
    return layer.replace("backpropagate.", "").replace(" | ", ", ")


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
