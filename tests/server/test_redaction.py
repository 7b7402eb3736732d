"""A secret in any text stays out of everything that leaves: each kind of secret, through each channel."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from finished_runs import finished_run
from mcp import Client
from waiting import small_spec

from backpropagate.cli import main
from backpropagate.server.app import build_server
from backpropagate.server.calls.audit_log import AuditLog
from backpropagate.training.errors import RuntimeFailure
from backpropagate.training.events import Warned
from backpropagate.training.logs import _Formatter
from backpropagate.training.redact import scrub
from backpropagate.training.runs.folder import RunFolder, Status
from backpropagate.training.runs.recorder import RunRecorder
from backpropagate.training.service import TrainingService
from backpropagate.training.worker.notice import _record

pytestmark = pytest.mark.anyio

SECRETS = {
    "WANDB_API_KEY=local-4f9a17c0": "local-4f9a17c0",
    "HF_TOKEN=my0wntoken": "my0wntoken",
    "db_password=hunter22": "hunter22",
    "access_token=ya77token": "ya77token",
    "client_secret=s3cret-of-client": "s3cret-of-client",
    "aws_secret_access_key=wJalrXUtnFEMI/K7MDENG": "wJalrXUtnFEMI/K7MDENG",
    "https://user:pass@host": ":pass@",
    "postgres://ada:0penSesame@db/main": "0penSesame",
    '{"api_key": "abc12345"}': "abc12345",
    "Authorization: Bearer abcdef1234567890": "abcdef1234567890",
}
"""A text with a secret → the secret."""


@pytest.fixture
def run(service: TrainingService, dataset: Path, tiny_model: Path) -> RunFolder:
    """A run that failed with every secret in its warnings, its error, its events and its log."""
    run = finished_run(service.store, small_spec(dataset, tiny_model), {}, Status.RUNNING)
    recorder = RunRecorder(service.store, run)
    for text in SECRETS:
        recorder.report(Warned(message=f"Seen: {text} in the file."))
    everything = " and ".join(SECRETS)
    recorder.failed(RuntimeFailure(f"Failed: {everything}", hint=f"Not {everything}", untrusted=everything))
    run.log_path.write_text("\n".join(SECRETS), encoding="utf-8")
    return run


def require_hidden(shown: str) -> None:
    for text, secret in SECRETS.items():
        assert secret not in shown, f"{text} in {shown[:2000]}"


def test_each_secret_is_known() -> None:
    assert [text for text, secret in SECRETS.items() if secret in scrub(text)] == []


def test_files_of_a_run_hold_none(run: RunFolder) -> None:
    for name in ("state.json", "events.jsonl", "spec.json"):
        written = (run.path / name).read_text(encoding="utf-8")
        require_hidden(written)
    assert "[hidden]" in (run.path / "state.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "command", [["show-run"], ["show-run", "--json"], ["list-runs"], ["list-runs", "--json"]]
)
def test_the_command_line_prints_none(
    command: list[str], run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run([*command, run.run_id] if command[0] == "show-run" else command) == 0
    require_hidden("".join(capsys.readouterr()))


@pytest.mark.parametrize("text", SECRETS)
@pytest.mark.parametrize("more", [[], ["--json"], ["--verbose"]])
def test_an_error_of_the_command_line_has_none(
    text: str, more: list[str], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["show-run", text, *more]) == 1
    require_hidden("".join(capsys.readouterr()))


async def test_tools_and_resources_return_none(service: TrainingService, run: RunFolder, home: Path) -> None:
    calls: list[tuple[str, dict[str, Any]]] = [
        ("get_run", {"run_id": run.run_id, "detail": "full"}),
        ("get_log", {"run_id": run.run_id, "lines": 100}),
        ("list_runs", {}),
        *(("get_run", {"run_id": text}) for text in SECRETS),
        *(("train", {"dataset": f"/nowhere/{text}"}) for text in SECRETS),
        *(("inspect_dataset", {"dataset": text}) for text in SECRETS),
    ]
    async with Client(build_server(service)) as client:
        for name, arguments in calls:
            require_hidden((await client.call_tool(name, arguments)).model_dump_json())
        for resource in (await client.list_resources()).resources:
            if run.run_id in str(resource.uri):
                require_hidden((await client.read_resource(str(resource.uri))).model_dump_json())
        for part in ("", "/events", "/log"):
            found = await client.read_resource(f"run://{run.run_id}{part}")
            require_hidden(found.model_dump_json())
    require_hidden((home / "audit.jsonl").read_text(encoding="utf-8"))


@pytest.mark.parametrize("as_json", [False, True])
def test_log_lines_have_none(as_json: bool) -> None:
    shown = _Formatter(as_json)
    for text in SECRETS:
        try:
            raise ValueError(text)
        except ValueError as error:
            caught = (type(error), error, error.__traceback__)
        line = logging.LogRecord("x", logging.ERROR, "f.py", 1, f"said {text}", None, caught)
        require_hidden(shown.format(line))


def test_the_audit_log_has_none(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    for text in SECRETS:
        log.record(who=text, method="tools/call", outcome=text)
    require_hidden((tmp_path / "audit.jsonl").read_text(encoding="utf-8"))


def test_notices_have_none(run: RunFolder) -> None:
    require_hidden(json.dumps(_record(run, run.state())))
