"""A library of a tracker's name that does what a test wants, also what real ones do when they fail."""

from __future__ import annotations

import os
from pathlib import Path
from textwrap import dedent

import pytest


def put_library(name: str, code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process and its children import a library of this name."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(dedent(code), encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    others = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(folder), others])))
