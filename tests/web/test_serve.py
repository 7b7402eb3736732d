"""Where the page is served, to whom, and where it writes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest

from backpropagate.cli.main import run
from backpropagate.training.config.settings import load_settings
from backpropagate.training.errors import (
    AuthRequiredError,
    ForeignOwnerError,
    InputError,
    OutputFolderForbiddenError,
)
from backpropagate.web import serve
from backpropagate.web.options import UiOptions, output_folder, require_auth
from backpropagate.web.passwords import accounts_of, hash_of
from backpropagate.web.tunnel import command_of


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Nothing is served; tells how long was waited before."""
    waited: list[float] = []
    monkeypatch.setattr(serve.time, "sleep", waited.append)
    monkeypatch.setattr(serve, "serve_at", lambda listening, app: listening.close())
    yield waited


def test_a_shared_page_needs_a_password(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ui", "--share", "--port", "0"]) == 1
    assert "INPUT_AUTH_REQUIRED" in capsys.readouterr().err
    for options in (UiOptions(share=True), UiOptions(host="0.0.0.0"), UiOptions(host="192.168.1.9")):
        with pytest.raises(AuthRequiredError):
            require_auth(options, load_settings())
    assert not require_auth(UiOptions(share=True, auth="ann:correct horse"), load_settings())
    assert not require_auth(UiOptions(host="::1"), load_settings())


def test_who_switches_that_off_is_warned_and_waits(
    monkeypatch: pytest.MonkeyPatch, served: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BACKPROPAGATE_SECURITY__REQUIRE_AUTH_FOR_SHARE", "false")
    assert run(["ui", "--share", "--port", "0"]) == 0
    said = capsys.readouterr().err
    assert served.count(5) == 1 and "WARNING: this page has no password" in said
    assert said.index("WARNING") < said.index("The page is at http://127.0.0.1:")


def test_a_shared_page_says_how_to_open_a_tunnel_and_opens_none(
    served: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["ui", "--share", "--auth", "ann:correct horse", "--port", "0"]) == 0
    said = capsys.readouterr().err
    assert "tunnel" in said and "correct horse" not in said and 5 not in served
    assert " ".join(command_of("cloudflared", 7)) == "cloudflared tunnel --url http://127.0.0.1:7"
    assert run(["ui", "--tunnel", "ssh"]) == 1


@pytest.mark.skipif(os.name == "nt", reason="folders of POSIX systems")
@pytest.mark.parametrize("folder", ["/etc/x", "/var/x", "/usr/x", "~/.ssh", "~/.aws/x", "~/.gnupg"])
def test_it_writes_to_no_folder_of_the_system_or_of_credentials(
    folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BACKPROPAGATE_UI__OUTPUT_DIR", folder)
    assert run(["ui", "--port", "0"]) == 1
    assert "UI_OUTPUT_DIR_FORBIDDEN" in capsys.readouterr().err


def test_it_does_not_write_into_the_home_of_runs_but_beside_them(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert output_folder(load_settings()) == (home / "ui-outputs").resolve()
    for folder in (home, home / "runs", tmp_path):
        monkeypatch.setenv("BACKPROPAGATE_UI__OUTPUT_DIR", str(folder))
        with pytest.raises(OutputFolderForbiddenError):
            output_folder(load_settings())
    monkeypatch.setenv("BACKPROPAGATE_UI__OUTPUT_DIR", str(tmp_path / "mine"))
    assert output_folder(load_settings()) == (tmp_path / "mine").resolve()


# --- Accounts. ---
@pytest.mark.anyio
async def test_an_account_is_a_name_with_a_password_or_its_hash(tmp_path: Path) -> None:
    file = tmp_path / "accounts"
    file.write_text(f"# who may\nbob:{hash_of('battery staple')}\n\neve:plain password\n")
    file.chmod(0o600)
    accounts = accounts_of(UiOptions(auth="ann:correct:horse", auth_file=file))
    for user, password in (("ann", "correct:horse"), ("bob", "battery staple"), ("eve", "plain password")):
        assert await accounts.admits(user, password) and not await accounts.admits(user, password + " ")
    assert not await accounts.admits("nobody", "correct:horse") and not await accounts.admits("ann", "")
    assert hash_of("battery staple") != hash_of("battery staple")
    assert "correct" not in repr(vars(accounts)) and "plain password" not in repr(vars(accounts))


@pytest.mark.parametrize(
    "auth", ["ann", "ann:", ":password", "ann:short", "ann:scrypt$x", "ann:scrypt$QUFB$QUFB"]
)
def test_what_is_no_account_is_refused(auth: str) -> None:
    with pytest.raises(InputError):
        accounts_of(UiOptions(auth=auth))


def test_a_file_of_accounts_must_be_private_and_have_one(tmp_path: Path) -> None:
    file = tmp_path / "accounts"
    with pytest.raises(InputError, match="does not exist"):
        accounts_of(UiOptions(auth_file=file))
    file.write_text("# nobody\n")
    file.chmod(0o600)
    with pytest.raises(InputError, match="no account"):
        accounts_of(UiOptions(auth_file=file))
    if os.name != "nt":
        file.chmod(0o644)
        with pytest.raises(ForeignOwnerError):
            accounts_of(UiOptions(auth_file=file))


# --- A process of its own. ---
@pytest.mark.skipif(os.name == "nt", reason="a console's Ctrl-C would reach the tests, too")
def test_ctrl_c_ends_it_though_a_page_is_open_and_nothing_heavy_was_loaded() -> None:
    command = [sys.executable, "-X", "importtime", "-P", "-m", "backpropagate", "ui", "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    said: list[str] = []
    while not said or "Ctrl-C ends" not in said[-1]:
        said.append(process.stderr.readline())
        assert said[-1]
    url = next(line for line in said if line.startswith("The page is at ")).split()[-1]
    with httpx.Client() as client, client.stream("GET", f"{url}runs/stream") as stream:
        assert next(stream.iter_lines()).startswith("event: runs") or stream.status_code == 200
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=30)[1]
    assert process.returncode == 0 and "Traceback" not in rest
    loaded = {
        line.rpartition("|")[2].strip().partition(".")[0] for line in said if line.startswith("import time")
    }
    assert not loaded & {"torch", "transformers", "datasets", "numpy", "pandas", "mcp"}
