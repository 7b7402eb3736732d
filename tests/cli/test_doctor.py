"""`backprop doctor`: each problem with its repair, in bounded time, and nothing started on a file's word."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

import pytest

from backpropagate.cli import main
from backpropagate.cli.doctor import clients, command, services
from backpropagate.cli.doctor.finding import Finding
from backpropagate.cli.doctor.installation import Torch, fit_of
from backpropagate.training.hardware.gpu import GpuReading, GpuReadings

Captured = pytest.CaptureFixture[str]
CARD = GpuReading(index=0, name="A100", uuid="GPU-1", processes=[])
DRIVER = GpuReadings([CARD], driver_version="550.1", cuda_version="12.4")


@pytest.fixture(autouse=True)
def users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("APPDATA", str(tmp_path / "AppData"))
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("torch", "readings", "level", "words"),
    [
        (Torch("2.11+cpu", None, False, [], []), GpuReadings([]), "ok", "no NVIDIA GPU"),
        (Torch("2.11+cpu", None, False, [], []), DRIVER, "problem", "built for no CUDA, but there is"),
        (Torch("2.11", "13.0", False, [], []), DRIVER, "problem", "driver 550.1 offers CUDA 12.4"),
        (Torch("2.11", "12.4", False, [], []), DRIVER, "problem", "it sees no GPU"),
        (Torch("2.11", "12.4", True, ["sm_90"], ["sm_120"]), DRIVER, "problem", "no code for sm_120"),
        (Torch("2.11", "12.4", True, ["sm_80", "sm_90"], ["sm_86"]), DRIVER, "ok", "can use 1 GPU"),
    ],
)
def test_torch_is_compared_with_the_driver(
    torch: Torch, readings: GpuReadings, level: str, words: str
) -> None:
    found = fit_of(torch, readings)
    assert found.level == level and words in found.message
    assert (found.repair is not None) == (level == "problem")


def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its check imports torch in another process, which takes seconds."""
    monkeypatch.setattr(command, "CHECKS", [check for check in command.CHECKS if check[0] != "torch"])


def test_it_prints_findings_and_says_by_its_exit_code_whether_there_is_a_problem(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    without_torch(monkeypatch)
    monkeypatch.setenv("BACKPROPAGATE_WINDOWS__PRE_TOKENIZE", "1")
    assert main.run(["doctor", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    found = {finding["area"] for finding in shown["findings"]}
    assert shown["problems"] == 0
    assert {
        "Python",
        "packages",
        "GPU",
        "CPU",
        "disk",
        "home",
        "settings",
        "Hub",
        "Ollama",
        "llama.cpp",
        "client",
    } <= found
    assert any("WINDOWS__PRE_TOKENIZE" in finding["message"] for finding in shown["findings"])
    monkeypatch.setenv("BACKPROPAGATE_LORA__RANK", "8")
    monkeypatch.setenv("OLLAMA_HOST", "ftp://host")
    Path(".env").write_text("BACKPROPAGATE_LORA__R=8")
    assert main.run(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "→ Did you mean BACKPROPAGATE_LORA__R?" in text and "→ Correct OLLAMA_HOST." in text
    assert "2 problem(s)." in text and "a project's file is not trusted" in text


@pytest.mark.skipif(os.name == "nt", reason="rights are inherited there")
def test_a_home_that_is_no_folder_of_this_user_is_a_problem(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    without_torch(monkeypatch)
    home.write_text("a file")
    assert main.run(["doctor"]) == 1
    assert "is not a writable folder" in capsys.readouterr().out


def test_a_hub_that_never_answers_is_not_waited_for(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.delenv("HF_HUB_OFFLINE")
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(services, "ANSWER_S", 0.2)
        (found,) = services.hub_findings()
    assert found.level == "note" and "cannot be reached" in found.message and found.repair


def test_a_check_that_hangs_or_fails_is_a_finding() -> None:
    import threading

    def hangs() -> list[Finding]:
        threading.Event().wait(30)
        return []

    def fails() -> list[Finding]:
        raise ValueError("odd")

    (hung,) = command._checked(("x", lambda: iter(hangs()), 0.1))
    (failed,) = command._checked(("x", lambda: iter(fails()), 5))
    assert "longer than 0.1 s" in hung.message and "ValueError: odd" in failed.message


def test_entries_of_clients_are_tried_and_foreign_programs_are_not(
    users_home: Path, capsys: Captured
) -> None:
    assert main.run(["serve", "--install", "cursor", "--yes"]) == 0
    (users_home / ".mcp.json").write_text(
        json.dumps(
            {
                "mcpServers": {
                    "backpropagate": {"command": sys.executable, "args": ["-c", "open('pwned','w')"]}
                }
            }
        )
    )
    (users_home / ".gemini").mkdir()
    gone = {"command": "/gone/python", "args": ["-m", "backpropagate"]}
    (users_home / ".gemini" / "settings.json").write_text(json.dumps({"mcpServers": {"backpropagate": gone}}))
    (users_home / ".vscode").mkdir()
    (users_home / ".vscode" / "mcp.json").write_text("{ // mine\n}")
    found = {finding.message.partition(":")[0]: finding for finding in clients.client_findings()}
    assert found["Cursor"].level == "ok"
    assert "was not tried" in found["Claude Code (in the project's folder)"].message
    assert not (users_home / "pwned").exists()
    assert found["Gemini CLI"].level == "problem" and "--install gemini" in str(found["Gemini CLI"].repair)
    assert "--print-config vscode" in str(found["VS Code (in the project's folder)"].repair)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_the_completion_of_each_shell_is_printed(shell: str, capsys: Captured) -> None:
    assert main.run(["completion", shell]) == 0
    shown = capsys.readouterr()
    assert "_BACKPROP_COMPLETE" in shown.out and "backprop" in shown.out
    assert f"backprop completion {shell}" in shown.err


@pytest.mark.slow
def test_torch_is_asked_in_a_process_of_its_own(home: Path, capsys: Captured) -> None:
    assert main.run(["doctor"]) == 0
    assert "torch" in capsys.readouterr().out
