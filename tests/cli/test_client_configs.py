"""The server in the configuration of MCP clients."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from backpropagate.cli.client_configs import CLIENTS, McpClient
from backpropagate.cli.main import run as command

ARGUMENTS = ["-P", "-m", "backpropagate", "serve"]


@pytest.fixture(autouse=True)
def users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("APPDATA", str(tmp_path / "AppData"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def server_in(client: McpClient) -> dict[str, object]:
    text = client.path().read_text(encoding="utf-8")
    found = tomllib.loads(text) if client.is_toml else json.loads(text)
    for key in (*client.keys, "backpropagate"):
        found = found[key]
    return found


@pytest.mark.parametrize("name", list(CLIENTS))
def test_the_entry_of_each_client_starts_this_server(name: str, users_home: Path) -> None:
    assert command(["serve", "--install", name, "--yes", "--root", str(users_home)]) == 0
    client = CLIENTS[name]
    assert client.path().is_relative_to(users_home)
    entry = server_in(client)
    assert entry == client.entry([*ARGUMENTS, "--root", str(users_home)])
    assert entry[client.environment] == {"BACKPROPAGATE_HOME": os.environ["BACKPROPAGATE_HOME"]}
    started = entry["command"] if client.command_is_list else [entry["command"], *entry["args"]]  # type: ignore[misc]
    assert started == [sys.executable, *ARGUMENTS, "--root", str(users_home)]
    if client.is_toml:
        return
    assert command(["serve", "--install", name, "--yes", "--root", str(users_home)]) == 0, "again"
    assert not list(client.path().parent.glob("*.backup")), "nothing has changed"


def test_a_home_that_is_the_usual_one_is_not_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BACKPROPAGATE_HOME")
    assert command(["serve", "--install", "codex", "--yes"]) == 0
    assert "env" not in server_in(CLIENTS["codex"])


def test_other_entries_stay_and_what_the_file_was_is_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    file = CLIENTS["cursor"].path()
    file.parent.mkdir()
    before = json.dumps({"mcpServers": {"other": {"command": "é"}}, "theme": "dark"})
    file.write_text(before, encoding="utf-8")
    file.chmod(0o600)
    assert command(["serve", "--install", "cursor", "--yes"]) == 0
    now = json.loads(file.read_text(encoding="utf-8"))
    assert now["theme"] == "dark" and list(now["mcpServers"]) == ["other", "backpropagate"]
    (backup,) = file.parent.glob("*.backup")
    assert backup.read_text(encoding="utf-8") == before and str(backup) in capsys.readouterr().out
    if os.name != "nt":
        assert {path.stat().st_mode & 0o777 for path in (file, backup)} == {0o600}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("cursor", "// mine\n{}", "is not plain JSON"),
        ("cursor", "[]", "is not plain JSON"),
        ("cursor", '{"mcpServers": 3}', "is not plain JSON"),
        ("codex", "x = [", "is not TOML"),
        ("codex", "[mcp_servers.backpropagate]\ncommand = 'x'\n", "has this server already"),
    ],
)
def test_a_file_that_cannot_be_changed_stays_as_it_is(
    name: str, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = CLIENTS[name].path()
    file.parent.mkdir()
    file.write_text(text, encoding="utf-8")
    assert command(["serve", "--install", name, "--yes"]) == 1
    assert said in capsys.readouterr().err and file.read_text(encoding="utf-8") == text
    assert list(file.parent.iterdir()) == [file]


def test_nothing_is_written_without_consent(users_home: Path) -> None:
    asked = [sys.executable, "-m", "backpropagate", "serve", "--install", "gemini"]
    done = subprocess.run(asked, input="n\n", capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 1 and "timeout" in done.stdout + done.stderr
    assert not CLIENTS["gemini"].path().exists()


def test_for_an_unknown_client_the_entry_is_only_printed(
    users_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["serve", "--install", "generic", "--yes"]) == 1
    assert command(["serve", "--print-config", "generic"]) == 0
    assert json.loads(capsys.readouterr().out)["mcpServers"]["backpropagate"]["args"] == ARGUMENTS
    assert not list(users_home.iterdir())


def test_an_entry_can_be_printed_only(users_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["serve", "--print-config", "vscode", "--read-only"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["servers"]["backpropagate"]["args"] == [*ARGUMENTS, "--read-only"]
    assert not (users_home / ".vscode").exists()
