"""The package as it is installed."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import backpropagate

ROOT = Path(__file__).parents[1]


def test_every_public_name_can_be_imported() -> None:
    for name in backpropagate.__all__:
        assert getattr(backpropagate, name) is not None
    assert set(backpropagate.__all__) <= set(dir(backpropagate))


def test_every_folder_with_code_is_in_the_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders = {
        ".".join(["backpropagate", *path.parent.relative_to(ROOT).parts])
        for top in ("cli", "examples", "server", "tools", "training")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert set(project["tool"]["setuptools"]["packages"]) == folders | {"backpropagate"}


def test_importing_the_package_or_the_service_brings_in_nothing_heavy() -> None:
    code = (
        "import sys, backpropagate; from backpropagate import TrainingService, server, tools;"
        "import backpropagate.server.app, backpropagate.cli.main;"
        "heavy = ('torch', 'transformers', 'datasets', 'pandas', 'numpy', 'peft', 'trl');"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
