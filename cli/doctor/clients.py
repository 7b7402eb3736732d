"""Which MCP clients have an entry of this server, and does the entry start it?"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...training.untrusted import shown_path
from ..client_configs import CLIENTS, NAME, McpClient
from .finding import Finding

START_S = 20.0
AREA = "client"
HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "backprop-doctor", "version": "1"},
    },
}


def client_findings() -> Iterator[Finding]:
    """A finding for each client whose file is there."""
    found = [finding for key, client in CLIENTS.items() for finding in _of_client(key, client)]
    yield from found
    if not found:
        repair = "`backprop serve --install CLIENT` puts it into one."
        yield Finding(AREA, "note", "No configuration of an MCP client was found.", repair)


def _of_client(key: str, client: McpClient) -> Iterator[Finding]:
    path = client.path()
    if not path.is_file():
        return
    where = f"{client.title}: {shown_path(path)}"
    install = f"`backprop serve --install {key}` puts it in."
    try:
        entry = _entry(client, path)
    except ValueError:
        by_hand = f"Put in by hand what `backprop serve --print-config {key}` shows."
        yield Finding(AREA, "note", f"{where} cannot be read by a program (it may have comments).", by_hand)
        return
    if entry is None:
        yield Finding(AREA, "note", f"{where} has no entry of this server.", install)
        return
    wrong = _why_it_fails(entry)
    if wrong:
        yield Finding(
            AREA, "problem", f"{where}: {wrong}", f"`backprop serve --install {key}` writes it anew."
        )
    elif not _is_ours(entry):
        yield Finding(AREA, "note", f"{where} starts another program, which was not tried: {entry[0]}")
    else:
        yield Finding(AREA, "ok", f"{where}: the server starts and answers.")


def _entry(client: McpClient, path: Path) -> list[str] | None:
    """The command line of our entry; None without one. Raises ValueError for a file of another form."""
    text = path.read_text(encoding="utf-8")
    found = _object(tomllib.loads(text) if client.is_toml else json.loads(text or "{}"))
    for key in (*client.keys, NAME):
        found = _object(found.get(key))
    if not found.get("command"):
        return None
    words = found["command"] if client.command_is_list else [found["command"]]
    return list(map(str, [*words, *(found.get("args") or [])]))


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType]


def _is_ours(entry: list[str]) -> bool:
    """Whether it is this interpreter with this program: anything else is not started on a file's word."""
    ours = ["-P", "-m", "backpropagate", "serve"]
    return entry[0] == sys.executable and entry[1 : 1 + len(ours)] == ours


def _why_it_fails(entry: list[str]) -> str | None:
    if shutil.which(entry[0]) is None:
        return f"its program {shown_path(entry[0])} does not exist."
    roots = [entry[index + 1] for index, word in enumerate(entry[:-1]) if word == "--root"]
    missing = [root for root in roots if not Path(root).is_dir()]
    if missing:
        return f"its folder {shown_path(missing[0])} does not exist."
    return _why_it_does_not_answer(entry) if _is_ours(entry) else None


def _why_it_does_not_answer(entry: list[str]) -> str | None:
    process = subprocess.Popen(
        entry, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ)
    )
    try:
        answer, said = process.communicate(json.dumps(HELLO).encode() + b"\n", timeout=START_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return f"the server did not answer within {START_S:.0f} s."
    if b"serverInfo" in answer:
        return None
    lines = said.decode(errors="replace").strip().splitlines()
    return f"the server does not start: {lines[-1][:300] if lines else f'exit code {process.returncode}'}"
