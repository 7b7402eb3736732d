"""events.jsonl: appended whole, read while it is written, whole again after a crash."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from backpropagate.training.events import Done, Phase, Queued, Step, Warned
from backpropagate.training.runs.event_log import EventLog, latest_events, read_events


def test_events_are_numbered_and_read_on_from_where_one_was(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.append(Queued())
    events, offset = read_events(log.path)
    log.append(Step(step=1, total_steps=2, loss=0.5))
    news, _ = read_events(log.path, offset)
    assert [event.seq for event in [*events, *news]] == [1, 2]
    assert news[0] == Step(seq=2, t=news[0].t, step=1, total_steps=2, loss=0.5)


@given(cut=st.integers(min_value=1, max_value=60))
def test_a_torn_last_line_is_ignored_and_mended_by_the_next_writer(cut: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.jsonl"
        log = EventLog(path)
        log.append(Warned(message="ä" * 20))
        whole = path.stat().st_size
        log.append(Phase(phase="loading", message="ö" * 20))
        with path.open("r+b") as file:
            file.truncate(whole + min(cut, path.stat().st_size - whole - 1))
        assert [event.kind for event in read_events(path)[0]] == ["warning"]
        again = EventLog(path).append(Done(status="completed"))
        assert again.seq == 2
        assert [event.kind for event in read_events(path)[0]] == ["warning", "done"]


def test_the_latest_events_of_a_long_run_are_found_without_reading_it_all(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    for step in range(2000):
        log.append(Step(step=step, total_steps=2000, loss=0.5, eta_s=12345.5, tokens_per_s=123456.5))
    latest = latest_events(log.path)
    assert isinstance(latest[-1], Step) and latest[-1].step == 1999 and 100 < len(latest) < 1000


def test_secrets_do_not_reach_the_file(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.append(Warned(message="could not use hf_" + "a" * 30))
    assert "aaaa" not in log.path.read_text() and "[hidden]" in log.path.read_text()
