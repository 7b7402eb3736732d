"""The package as it is installed."""

from __future__ import annotations

import inspect
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import backpropagate

ROOT = Path(__file__).parents[1]


def test_every_public_name_can_be_imported() -> None:
    for name in backpropagate.__all__:
        assert getattr(backpropagate, name) is not None
    assert set(backpropagate.__all__) <= set(dir(backpropagate))


def own_classes(annotation: Any) -> Iterator[type]:
    """The classes of this package in an annotation."""
    if isinstance(annotation, type) and annotation.__module__.startswith("backpropagate"):
        yield annotation
    for part in get_args(annotation):
        yield from (
            found for one in (part if isinstance(part, list) else [part]) for found in own_classes(one)
        )


def test_every_type_in_a_public_signature_is_public_too() -> None:
    public = {name: getattr(backpropagate, name) for name in backpropagate.__all__}
    functions = {name: value for name, value in public.items() if inspect.isfunction(value)}
    for name, value in public.items():
        if inspect.isclass(value):
            methods = inspect.getmembers(value, inspect.isfunction)
            functions |= {f"{name}.{m}": f for m, f in methods if not m.startswith("_") or m == "__init__"}
    named = {
        (where, found.__name__)
        for where, function in functions.items()
        if (function.__module__ or "").startswith("backpropagate")
        for annotation in get_type_hints(function).values()
        for found in own_classes(annotation)
        if found not in public.values()
    }
    assert not named


def test_every_folder_with_code_is_in_the_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders = {
        ".".join(["backpropagate", *path.parent.relative_to(ROOT).parts])
        for top in ("cli", "examples", "server", "tools", "training", "web")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert set(project["tool"]["setuptools"]["packages"]) == folders | {"backpropagate"}


def test_importing_the_package_or_the_service_brings_in_nothing_heavy() -> None:
    code = (
        "import sys, backpropagate; from backpropagate import TrainingService, server, tools;"
        "import backpropagate.server.app, backpropagate.cli.main, backpropagate.web.serve;"
        "heavy = ('torch', 'transformers', 'datasets', 'pandas', 'numpy', 'peft', 'trl');"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
