"""`backprop list-runs` fits a narrow terminal, and reads no more runs than it shows."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from finished_runs import finished_run

from backpropagate.cli import main
from backpropagate.cli.run_table import age_of, short_id
from backpropagate.training.config.specs import DataGroup, ExportSpec, ModelGroup, TrainSpec
from backpropagate.training.runs.folder import RunFolder
from backpropagate.training.runs.store import RunStore

LONG = "some-organisation-with-a-long-name/A-Model-With-A-Name-That-Is-Longer-Than-Any-70B-Instruct"


def test_the_table_has_heads_and_ages_and_fits_eighty_columns(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    store = RunStore(home)
    finished_run(store, TrainSpec(model=ModelGroup(name=LONG)), {"steps": 100_000, "total_steps": 100_000})
    finished_run(store, ExportSpec(model=ModelGroup(name="smollm2-135m")), {"path": str(home / "a.gguf")})
    assert main.run(["list-runs"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["RUN", "STATUS", "AGE", "KIND", "STEPS", "LOSS", "MODEL"]
    assert len(rows) == 2 and max(map(len, [head, *rows])) <= 80
    assert rows[1].endswith("70B-Instruct") and "smollm2-135m" in rows[0]
    for row in rows:  # what is shown finds the run
        assert main.run(["show-run", row.split()[0]]) == 0


@pytest.mark.parametrize(
    ("seconds", "shown"), [(-5, "0s"), (59, "59s"), (60, "1m"), (7199, "1h"), (86_400, "1d"), (9e6, "104d")]
)
def test_an_age_is_one_number_with_its_unit(seconds: float, shown: str) -> None:
    assert age_of(seconds) == shown


def test_a_part_of_an_id_that_fits_two_runs_is_not_shown_for_either() -> None:
    one, two, three = (
        "20261122T090712.345Z-a-a7f3",
        "20261122T090713.345Z-a-a7f3",
        "20261122T090713.345Z-a-b7f3",
    )
    assert short_id(one, [one]) == "a7f3"
    assert short_id(one, [one, two]) == "20261122T090712.345Z"
    assert short_id(two, [one, two, three]) == two


def test_the_newest_runs_are_listed_without_reading_the_older_ones(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RunStore(home)
    first = finished_run(store, TrainSpec(), {"steps": 1, "total_steps": 1})
    for number in range(300):
        shutil.copytree(first.path, first.path.with_name(f"20200101T000000.{number:03d}Z-old-{number:04x}"))
    read: set[str] = set()
    state_of = RunFolder.state
    monkeypatch.setattr(RunFolder, "state", lambda run: read.add(run.run_id) or state_of(run))
    assert main.run(["list-runs", "--limit", "3"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4 and len(read) == 3


def test_the_datasets_of_a_run_are_joined_by_commas(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = TrainSpec(data=DataGroup(source=["/data/a.jsonl", "/data/b.jsonl"]))
    run = finished_run(RunStore(home), spec, {"steps": 1, "total_steps": 1})
    assert main.run(["show-run", run.run_id]) == 0
    assert "  dataset  /data/a.jsonl, /data/b.jsonl\n" in capsys.readouterr().out
