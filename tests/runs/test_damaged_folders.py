"""A damaged run folder is one line that says what to do; the other runs and the server go on."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from click.testing import CliRunner
from finished_runs import finished_run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backpropagate.cli.runs import prune
from backpropagate.tools.status import run_status
from backpropagate.training.config.settings import load_settings
from backpropagate.training.config.specs import DataGroup, ModelGroup, TrainSpec
from backpropagate.training.errors import BackpropagateError, RunFolderError, StateError
from backpropagate.training.runs import locks
from backpropagate.training.runs.folder import RunFolder, Status
from backpropagate.training.runs.identity import host
from backpropagate.training.runs.kinds import KINDS
from backpropagate.training.runs.request_index import RequestIndex
from backpropagate.training.runs.store import RunStore
from backpropagate.training.service import TrainingService
from backpropagate.training.submission.dispatch import Dispatch

FOLDERS = Path(__file__).parent / "folders_of_0_1"
READ_BY_ALL = ("state.json", "spec.json", "plan.json", "events.jsonl", "worker.lock")
RECORDS = (*READ_BY_ALL, "control.json", "parts.json")
DEEP = b'{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}"
UNLISTED = {kind.name for kind in KINDS.values() if not kind.listed}
GOOD = "20260101T000000.000Z-good-0000"
DAMAGED = "20260102T000000.000Z-damaged-0000"


def spec() -> TrainSpec:
    return TrainSpec(model=ModelGroup(name="smollm2-135m"), data=DataGroup(source="/nowhere/a.jsonl"))


@pytest.fixture
def service(home: Path, monkeypatch: pytest.MonkeyPatch) -> TrainingService:
    """A service that starts no workers, with one good run."""
    made = TrainingService(load_settings())
    monkeypatch.setattr(Dispatch, "start", lambda self, run: None)
    run = finished_run(made.store, spec(), {"steps": 3, "total_steps": 3, "first_loss": 1.5})
    run.path.rename(run.path.with_name(GOOD))
    return made


def damaged(service: TrainingService, source: Path | None = None) -> RunFolder:
    """A run that worked when its machine died, or a copy of an older folder."""
    folder = service.store.runs / DAMAGED
    shutil.rmtree(folder, ignore_errors=True)
    if source is None:
        made = service.store.create(spec(), DAMAGED)
        made.write_state(made.state().model_copy(update={"pid": 1, "status": Status.RUNNING}))
        made.write_plan({"steps": 3})
        made.lock_path.touch()
    else:
        shutil.copytree(source, folder)
        state = folder / "state.json"
        state.write_text(state.read_text().replace("desk~0123456789ab", host()))
        (service.store.home / "active" / DAMAGED).touch()
    return RunFolder(folder)


async def ends_in_an_answer(ask: Callable[[], Awaitable[Any]]) -> None:
    """Whatever the folder holds: an answer that can be encoded, or one of our errors."""
    try:
        answer = await ask()
    except BackpropagateError as error:
        answer = error.sentence()
        assert error.code != "RUNTIME_ERROR", answer
    str(answer).encode()


async def shown_in_full(service: TrainingService, run_id: str) -> str:
    return run_status(await service.get(run_id)).text()


async def use_every_door(service: TrainingService) -> None:
    await service.recover()
    lines, unreadable = await service.list(None, 50)
    assert GOOD in [line.run_id for line in lines], unreadable
    shown = [line.run_id for line in lines] + [line for line in unreadable if DAMAGED in line]
    assert len(shown) == 2 or service.store.find(DAMAGED).state().kind in UNLISTED
    for line in lines:
        str(line).encode()
        await ends_in_an_answer(lambda line=line: shown_in_full(service, line.run_id))
    assert (await service.get(GOOD)).status is Status.COMPLETED
    for status in (Status.COMPLETED, Status.RUNNING):
        await service.list(status, 50)
    for door in (service.get, service.cancel, service.resume, service.delete):
        await ends_in_an_answer(lambda door=door: door(DAMAGED))
    assert (service.store.runs / GOOD / "state.json").is_file()


def test_a_list_reads_of_an_ended_run_its_state_alone(service: TrainingService) -> None:
    before = anyio.run(service.list)
    for path in (service.store.runs / GOOD).iterdir():
        if path.name != "state.json":
            path.unlink()
    assert anyio.run(service.list) == before
    with pytest.raises(RunFolderError):
        anyio.run(service.get, GOOD)


def write(raw: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(raw)


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def as_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


def as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": write(b""),
    "half": write(b'{"status": "comp'),
    "binary": write(b"\xff\x00" * 50),
    "deep": write(DEEP),
    "a list": write(b"[1]"),
    "another object": write(b'{"x": 1}'),
    "a huge number": write(b'{"attempt": ' + b"9" * 5000 + b"}"),
    "missing": Path.unlink,
    "a folder": as_folder,
    "a terabyte": lambda path: os.truncate(path, 2**40),
}
if os.name != "nt":
    DAMAGE |= {"a link": as_link, "a pipe": as_pipe}


@pytest.mark.parametrize("name", READ_BY_ALL)
@pytest.mark.parametrize(
    "damage", [name for name in DAMAGE if os.name != "nt" or name not in {"a link", "a pipe"}]
)
def test_no_damage_of_a_file_hides_the_other_runs(name: str, damage: str, service: TrainingService) -> None:
    DAMAGE[damage](damaged(service).path / name)
    anyio.run(use_every_door, service)


@pytest.mark.parametrize(
    "change",
    [
        {"status": "queued", "pid": None, "queued_at": "nonsense"},
        {"status": "queued", "pid": None, "created_at": "2025-01-01T00:00:00"},
        {"ended_at": 5},
        {"pid": 2**62},
        {"pid": -1},
        {"attempt": 10**30},
        {"host": None},
        {"kind": "export"},
        {"kind": "zzz"},
        {"result": {"answers": ["a"]}},
        {"result": {"kind": "export", "path": "/a"}},
        {"result": [1]},
        {"warnings": "abc"},
        {"error": {"code": [], "message": 1}},
    ],
)
def test_a_state_with_a_wrong_value_is_named_with_its_file_and_the_next_step(
    change: dict[str, Any], service: TrainingService
) -> None:
    path = damaged(service).path / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    _, unreadable = anyio.run(service.list, None, 50)
    assert len(unreadable) == 1 and DAMAGED in unreadable[0], unreadable
    assert "[STATE_RUN_UNREADABLE]" in unreadable[0] and "Next: " in unreadable[0]
    anyio.run(use_every_door, service)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_is_shown(value: float, service: TrainingService) -> None:
    path = damaged(service).path / "state.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"status": "completed", "result": {"first_loss": value}}))
    anyio.run(use_every_door, service)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["\ud800", "2025-01-01T00:00:00", "completed", "queued", "running", "x" * 5000]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
SOURCES = [None, *sorted(path for path in FOLDERS.iterdir())]


def places_in(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place, *(found for key, item in inner for found in places_in(item, (*place, key)))]


def replaced(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    if not place:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[place[0]] = replaced(copy[place[0]], place[1:], new)
    return copy


def mutated(raw: bytes, data: st.DataObject) -> bytes:
    """The file with one value exchanged, or with bytes cut, doubled or flipped."""
    lines = raw.split(b"\n") if raw.count(b"}\n{") else [raw]
    at = data.draw(st.integers(0, len(lines) - 1))
    try:
        value = json.loads(lines[at])
    except ValueError:
        value = None
    if value is not None and data.draw(st.booleans()):
        place = data.draw(st.sampled_from(places_in(value)))
        lines[at] = json.dumps(replaced(value, place, data.draw(JSON))).encode()
        return b"\n".join(lines)
    start = data.draw(st.integers(0, len(raw)))
    end = data.draw(st.integers(start, min(len(raw), start + 40)))
    return raw[:start] + data.draw(st.binary(max_size=10)) + raw[end:]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def test_no_mutation_of_a_run_folder_ends_in_anything_but_an_answer_or_our_error(
    service: TrainingService, data: st.DataObject
) -> None:
    folder = damaged(service, data.draw(st.sampled_from(SOURCES))).path
    for name in data.draw(st.sets(st.sampled_from(RECORDS), min_size=1, max_size=2)):
        raw = (folder / name).read_bytes() if (folder / name).is_file() else b"{}"
        (folder / name).write_bytes(mutated(raw, data))
    anyio.run(use_every_door, service)


@pytest.mark.skipif(os.name == "nt", reason="such names need another file system")
def test_what_is_no_run_among_the_runs_is_named_or_passed_over(service: TrainingService) -> None:
    runs = service.store.runs
    (runs / "a file").write_text("x")
    (runs / "loop").symlink_to(runs / "loop")
    (runs / "dangling").symlink_to("/nowhere")
    (runs / "bad\nNext: push\x1b[31m").mkdir()
    os.mkdir(os.fsencode(runs) + b"/bad\xff\xfe")
    views, unreadable = anyio.run(service.list, None, 50)
    assert [view.run_id for view in views] == [GOOD]
    assert len(unreadable) == 2 and all("is not a run" in line for line in unreadable)
    assert not any("\n" in line or "\x1b" in line for line in unreadable)
    "".join(unreadable).encode()
    anyio.run(service.recover)


def test_the_records_of_requests_may_be_damaged(service: TrainingService, tmp_path: Path) -> None:
    store = service.store
    first = RequestIndex(store).run_for(spec(), "key", "abc", False).run
    records = list((store.home / "requests").glob("key-*.json"))
    for raw in (b"{", b'{"run_id": "../../x", "arguments": "y"}', b'{"run_id": []}', DEEP):
        for record in records:
            record.write_bytes(raw)
        with pytest.raises(StateError, match="request_key"):
            RequestIndex(store).run_for(spec(), "key", "abc", False)
    assert RequestIndex(store).run_for(spec(), None, "abc", True).run.run_id == first.run_id
    (store.home / "requests" / "equal-abc.json").write_bytes(b"nonsense")
    assert not RequestIndex(store).run_for(spec(), None, "abc", True).existing


def test_a_part_outside_the_run_that_a_damaged_plan_names_stays(
    service: TrainingService, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    run = damaged(service)
    run.write_plan({"steps": 3, "parts": [str(precious)]})
    assert anyio.run(service.get, DAMAGED).status is Status.INTERRUPTED
    assert precious.is_dir()


def test_a_record_that_is_a_link_is_not_followed(service: TrainingService, tmp_path: Path) -> None:
    run = damaged(service)
    (tmp_path / "secret.json").write_text('{"secret": 1}')
    (run.path / "plan.json").unlink()
    (run.path / "plan.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(RunFolderError, match="is a link"):
        run.plan()


@pytest.mark.parametrize("name", READ_BY_ALL)
def test_a_damaged_run_can_be_removed(name: str, service: TrainingService) -> None:
    run = damaged(service)
    as_folder(run.path / name)
    if name != "state.json":  # otherwise the run may still be running
        run.write_state(run.state().model_copy(update={"status": Status.FAILED}))
    assert anyio.run(service.delete, DAMAGED) == DAMAGED
    assert service.store.ids() == [GOOD]


def test_a_run_whose_lock_is_a_folder_can_be_removed_at_the_command_line(service: TrainingService) -> None:
    run = damaged(service)
    state = run.state().model_copy(update={"status": Status.RUNNING, "pid": 1, "ended_at": None})
    run.write_state(state)
    run.lock_path.unlink(missing_ok=True)
    run.lock_path.mkdir()
    done = CliRunner().invoke(prune, [run.run_id, "--yes"])
    assert done.exit_code == 0 and "unreadable" in done.output and not run.path.exists()


# --- Runs that go while somebody looks at them.


def failed_run(service: TrainingService) -> RunFolder:
    spec = TrainSpec(model=ModelGroup(name="a/b"), data=DataGroup(source="rows.jsonl"))
    return finished_run(service.store, spec, {}, Status.FAILED)


@pytest.mark.parametrize("meanwhile", ["resumed", "removed"])
def test_a_run_that_changes_while_it_is_removed_is_looked_at_again(
    meanwhile: str, service: TrainingService, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = failed_run(service)
    require_ended = RunStore.require_ended

    def seen_too_early(store: RunStore, run: RunFolder) -> None:
        require_ended(store, run)
        monkeypatch.undo()
        if meanwhile == "resumed":
            store.requeue(run, 1)
        else:
            store.delete(run)

    monkeypatch.setattr(RunStore, "require_ended", seen_too_early)
    said = "is queued" if meanwhile == "resumed" else "has been removed"
    with pytest.raises(BackpropagateError, match=said):
        anyio.run(service.delete, run.run_id)
    assert run.path.exists() == (meanwhile == "resumed")


@pytest.mark.skipif(os.name == "nt", reason="Windows removes no file that is locked")
@pytest.mark.parametrize("door", ["delete", "resume"])
def test_a_run_that_is_removed_while_its_lock_is_taken_is_said_to_be_removed(
    door: str, service: TrainingService, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = failed_run(service)
    require_own = locks.require_own

    def removed_first(path: Path) -> None:
        shutil.rmtree(run.path)
        require_own(path)

    monkeypatch.setattr(locks, "require_own", removed_first)
    with pytest.raises(BackpropagateError, match="has been removed"):
        anyio.run(getattr(service, door), run.run_id)
    assert not run.path.exists()


def test_a_removed_run_does_not_come_back_when_its_worker_is_attended_to(
    service: TrainingService, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = failed_run(service)
    service.store.delete(run)
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: pytest.fail("a list would show the run"))
    service.store.fail_unstarted(run, 1, StateError("It could not start.").record())
    assert not run.path.exists()
