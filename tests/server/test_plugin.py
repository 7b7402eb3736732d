"""The plugin for Claude Code in `packaging/claude-code/` has the server's own skill and entry.

Set UPDATE_SNAPSHOTS=1 to write its files anew.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from backpropagate.cli.client_configs import CLIENTS, NAME
from backpropagate.server.skill import FILE, skill_text

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ABOUT = "Fine-tune language models on this machine, prove whether it helped, and export them."
FOLDER = "packaging/claude-code"
COMMAND = "backpropagate-mcp"
AUTHOR = {"name": "The maintainers of backpropagate"}
SHARED = ("version", "license", "keywords")


def as_text(fields: dict[str, Any]) -> str:
    return json.dumps(fields, indent=2) + "\n"


def files() -> dict[str, str]:
    entry = {**CLIENTS["claude-code"].entry([]), "command": COMMAND}
    entry.pop("env", None)  # of the shell that runs the tests
    described = {"name": NAME, "description": ABOUT}
    plugin = {**described, "author": AUTHOR} | {name: PROJECT[name] for name in SHARED}
    market = {**described, "owner": AUTHOR, "plugins": [{**described, "source": f"./{FOLDER}"}]}
    return {
        ".claude-plugin/marketplace.json": as_text(market),
        f"{FOLDER}/.claude-plugin/plugin.json": as_text(plugin),
        f"{FOLDER}/.mcp.json": as_text({"mcpServers": {NAME: entry}}),
        f"{FOLDER}/skills/{FILE.parent.name}/SKILL.md": skill_text(),
    }


@pytest.mark.parametrize("name", files())
def test_each_file_of_the_plugin_is_made_from_the_servers_own(name: str) -> None:
    path, wanted = ROOT / name, files()[name]
    if os.environ.get("UPDATE_SNAPSHOTS"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted, encoding="utf-8", newline="\n")
    assert path.read_text(encoding="utf-8") == wanted


def test_the_plugin_has_no_other_file_and_starts_a_command_of_this_package() -> None:
    found = [path.relative_to(ROOT).as_posix() for path in (ROOT / FOLDER).rglob("*") if path.is_file()]
    assert {*found, ".claude-plugin/marketplace.json"} == set(files())
    assert COMMAND in PROJECT["scripts"] and re.fullmatch(r"[a-z-]+", NAME)
