"""What MCP clients want in their configuration to start this server, and where they keep it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ..training.errors import InputError
from ..training.files.atomic_json import write_bytes
from ..training.runs.identity import now
from ..training.untrusted import shown_path

NAME = "backpropagate"
HOME = "BACKPROPAGATE_HOME"
PATIENCE_S = 600
"""For one call, where the client lets it be set; a call returns earlier."""

Entry = dict[str, Any]


@dataclass(frozen=True)
class McpClient:
    """A program that starts MCP servers.

    Args:
        path: its configuration file on this system.
        keys: under which names of the file the servers are.
        more: entries of the server besides `command` and `args`.
        command_is_list: the command has its arguments.
        environment: the entry with the environment of the server.
    """

    title: str
    path: Callable[[], Path]
    keys: tuple[str, ...] = ("mcpServers",)
    more: Mapping[str, Any] | None = None
    command_is_list: bool = False
    environment: str = "env"

    @property
    def is_toml(self) -> bool:
        return self.path().suffix == ".toml"

    def entry(self, arguments: list[str]) -> Entry:
        """The entry: this interpreter with `arguments`, and the home of runs if this shell sets it."""
        started: Entry = {"command": sys.executable, "args": arguments}
        if self.command_is_list:
            started = {"command": [sys.executable, *arguments]}
        if os.environ.get(HOME):  # clients start servers without the user's shell
            started[self.environment] = {HOME: str(Path(os.environ[HOME]).absolute())}
        return {**started, **(self.more or {})}

    def text(self, arguments: list[str]) -> str:
        """The part of the file with the server."""
        entry = self.entry(arguments)
        if self.is_toml:
            lines = [f"{key} = {_as_toml(value)}" for key, value in entry.items()]
            return "\n".join([f"[{'.'.join([*self.keys, NAME])}]", *lines]) + "\n"
        return json.dumps(_under(self.keys, {NAME: entry}), indent=2, ensure_ascii=False) + "\n"

    def changed(self, before: str, arguments: list[str]) -> str:
        """The text of its file with the server in it.

        Raises:
            InputError: `before` is not a file that can be changed.
        """
        return (self._changed_toml if self.is_toml else self._changed_json)(before, arguments)

    def _changed_json(self, before: str, arguments: list[str]) -> str:
        try:
            whole: Entry = json.loads(before) if before.strip() else {}
            servers = whole
            for key in self.keys:
                servers: Entry = servers.setdefault(key, {})
            servers[NAME] = self.entry(arguments)
        except (ValueError, AttributeError, TypeError) as error:
            raise self._by_hand("is not plain JSON (it may have comments)") from error
        return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"

    def _changed_toml(self, before: str, arguments: list[str]) -> str:
        import tomllib  # here, since a server starts without it

        try:
            known = tomllib.loads(before)
        except tomllib.TOMLDecodeError as error:
            raise self._by_hand("is not TOML") from error
        for key in (*self.keys, NAME):
            known = known.get(key, {})
        if known:
            raise self._by_hand("has this server already")
        return (before.rstrip() + "\n\n" if before.strip() else "") + self.text(arguments)

    def _by_hand(self, reason: str) -> InputError:
        return InputError(
            f"{shown_path(self.path())} {reason}.", hint="Put the entry that --print-config shows in by hand."
        )


def install(client: McpClient, arguments: list[str], agreed: Callable[[str], bool]) -> Path | None:
    """Put the server into the client's file; what was there stays beside it.

    Args:
        agreed: gets the difference, and says whether to go on.

    Returns:
        The backup of the file, or None if there was none or nothing changed.

    Raises:
        InputError: the file cannot be changed by a program.
    """
    path = client.path().resolve()  # what a link leads to is changed, not the link
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    after = client.changed(before, arguments)
    if before == after or not agreed("".join(_difference(path, before, after))):
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        write_bytes(path, after.encode())
        return None
    backup = path.with_name(f"{path.name}.{now().replace(':', '')}.backup")
    shutil.copy2(path, backup)
    write_bytes(path, after.encode(), path.stat().st_mode & 0o777)
    return backup


def _as_toml(value: Any) -> str:
    """A text, number, list of them, or an inline table of texts."""
    if isinstance(value, dict):
        pairs = cast("dict[str, str]", value).items()
        return f"{{ {', '.join(f'{name} = {_as_toml(text)}' for name, text in pairs)} }}"
    return json.dumps(value, ensure_ascii=False)


def _difference(path: Path, before: str, after: str) -> list[str]:
    from difflib import unified_diff

    lines = (before.splitlines(keepends=True), after.splitlines(keepends=True))
    return list(unified_diff(*lines, str(path), f"{path} (new)"))


def _under(keys: tuple[str, ...], value: Entry) -> Entry:
    for key in reversed(keys):
        value = {key: value}
    return value


def _home(*parts: str) -> Callable[[], Path]:
    return lambda: Path.home().joinpath(*parts)


def _here(*parts: str) -> Callable[[], Path]:
    return lambda: Path.cwd().joinpath(*parts)


def _application(folder: str, file: str, linux: str | None = None) -> Callable[[], Path]:
    """A file in the place for applications' data of this system."""

    def path() -> Path:
        if sys.platform == "win32":
            return Path(os.environ.get("APPDATA", Path.home() / "AppData" / "Roaming")) / folder / file
        if sys.platform == "darwin" and linux is None:
            return Path.home() / "Library" / "Application Support" / folder / file
        return Path.home() / ".config" / (linux or folder) / file

    return path


CLIENTS = {
    "claude-desktop": McpClient("Claude Desktop", _application("Claude", "claude_desktop_config.json")),
    "claude-code": McpClient("Claude Code (in the project's folder)", _here(".mcp.json")),
    "vscode": McpClient(
        "VS Code (in the project's folder)", _here(".vscode", "mcp.json"), ("servers",), {"type": "stdio"}
    ),
    "cursor": McpClient("Cursor", _home(".cursor", "mcp.json")),
    "windsurf": McpClient("Windsurf", _home(".codeium", "windsurf", "mcp_config.json")),
    "zed": McpClient("Zed", _application("Zed", "settings.json", linux="zed"), ("context_servers",)),
    "codex": McpClient(
        "Codex",
        _home(".codex", "config.toml"),
        ("mcp_servers",),
        {"startup_timeout_sec": 30, "tool_timeout_sec": PATIENCE_S},
    ),
    "gemini": McpClient("Gemini CLI", _home(".gemini", "settings.json"), more={"timeout": PATIENCE_S * 1000}),
    "opencode": McpClient(
        "opencode",
        _home(".config", "opencode", "opencode.json"),
        ("mcp", "servers"),
        {"type": "local"},
        command_is_list=True,
        environment="environment",
    ),
    "copilot": McpClient(
        "GitHub Copilot CLI",
        _home(".copilot", "mcp-config.json"),
        more={"type": "local", "tools": ["*"], "timeout": PATIENCE_S * 1000},
    ),
}
"""Those whose file is known."""

SHOWN = {**CLIENTS, "generic": McpClient("most other clients", _here("mcp.json"))}
"""Those whose entry can be shown."""
