"""What registries and bundles say of the package is what it is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from inspect import cleandoc
from pathlib import Path
from typing import Any

from backpropagate.tools import TOOLS

ROOT = Path(__file__).parents[1]
BUNDLE = ROOT / "packaging" / "mcpb"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def manifest() -> dict[str, Any]:
    return {
        "manifest_version": "0.4",
        "name": "backpropagate",
        "display_name": "backpropagate",
        "version": PROJECT["version"],
        "description": PROJECT["description"],
        "author": {"name": "The maintainers of backpropagate"},
        "license": PROJECT["license"],
        "keywords": PROJECT["keywords"],
        "server": {
            "type": "uv",
            "entry_point": "server.py",
            "mcp_config": {
                "command": "uv",
                "args": [
                    "run",
                    "--directory",
                    "${__dirname}",
                    "server.py",
                    "--root",
                    "${user_config.folder}",
                ],
                "env": {},
            },
        },
        "tools": [
            {"name": tool.name, "description": cleandoc(tool.function.__doc__ or "").split("\n\n")[0]}
            for tool in TOOLS
        ],
        "compatibility": {
            "platforms": ["darwin", "win32", "linux"],
            "runtimes": {"python": PROJECT["requires-python"]},
        },
        "user_config": {
            "folder": {
                "type": "directory",
                "title": "Folder with your data",
                "description": "Tools may read and write here, besides your home folder.",
                "required": True,
                "default": "${HOME}/Documents",
            }
        },
    }


def test_the_manifest_of_the_bundle_is_up_to_date() -> None:
    """Set UPDATE_SNAPSHOTS=1 to write it anew."""
    path = BUNDLE / "manifest.json"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        path.write_text(json.dumps(manifest(), indent=2) + "\n", encoding="utf-8", newline="\n")
    assert json.loads(path.read_text(encoding="utf-8")) == manifest()


def test_the_bundle_asks_for_this_version_with_what_training_needs() -> None:
    bundled = tomllib.loads((BUNDLE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert bundled["version"] == PROJECT["version"]
    assert bundled["dependencies"] == [f"{PROJECT['name']}[train]=={PROJECT['version']}"]
    assert bundled["requires-python"] == PROJECT["requires-python"]


def test_the_registry_entry_is_that_of_the_package_and_the_readme_owns_it() -> None:
    entry = json.loads((ROOT / "server.json").read_text(encoding="utf-8"))
    (package,) = entry["packages"]
    assert entry["version"] == package["version"] == PROJECT["version"]
    assert package["identifier"] == PROJECT["name"] and len(entry["description"]) <= 100
    assert f"<!-- mcp-name: {entry['name']} -->" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert package["runtimeArguments"][0]["value"] == f"{PROJECT['name']}[train]=={PROJECT['version']}"


def test_the_bundles_program_serves(home: Path, tmp_path: Path) -> None:
    """A copy, without the project beside it."""
    program = shutil.copy(BUNDLE / "server.py", tmp_path)
    asked = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    served = subprocess.run(
        [sys.executable, program, "--root", str(tmp_path)],
        input=json.dumps(asked) + "\n",
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT.parent)} if "PYTHONPATH" not in os.environ else None,
    )
    assert json.loads(served.stdout.splitlines()[0])["id"] == 1, served.stderr
