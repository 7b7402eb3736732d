"""What inspect_dataset says of rows that were not read, or not seen through the model's chat template."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from backpropagate.tools.context import ToolContext
from backpropagate.tools.inspect_dataset import DatasetReport, dataset_report, inspect_dataset
from backpropagate.training.config.results import InspectResult
from backpropagate.training.events import Event
from backpropagate.training.files.paths import PathPolicy
from backpropagate.training.service import TrainingService

ALL_IS_WELL = "No problems were found in its rows."
TOKENS: dict[str, Any] = {
    "median": 5, "p90": 6, "p99": 7, "max": 7, "total": 1500, "trained_share": 0.25,
    "max_seq_length": 2048, "rows_cut": 0, "share_of_tokens_cut": 0.0,
}  # fmt: skip


def said(**values: Any) -> str:
    return dataset_report("id", InspectResult(**values)).text()


def test_all_is_well_is_said_of_rows_that_were_read_and_rendered() -> None:
    assert ALL_IS_WELL in said(rows=3, usable=3, tokens=TOKENS)


def test_tokens_are_told_in_words_and_not_of_rows_that_cannot_be_used() -> None:
    whole = "Tokens: 1,500, 25% of them trained; a row has 5 (median), 6 (p90), 7 (longest)."
    assert f"{whole} No row is longer than max_seq_length=2048." in said(rows=3, usable=3, tokens=TOKENS)
    cut = {**TOKENS, "rows_cut": 2, "share_of_tokens_cut": 0.125}
    assert "are truncated: 2, which drops 12.5% of the tokens." in said(rows=3, usable=3, tokens=cut)
    assert "Tokens" not in said(rows=3, usable=0, tokens=TOKENS)


@pytest.mark.parametrize(
    ("result", "instead"),
    [
        pytest.param({"rows": 3, "usable": 3}, "tried on 0 rows only", id="no tokenizer"),
        pytest.param(
            {"rows": 9, "usable": 9, "tokens": {**TOKENS, "estimated_from_rows": 4}},
            "tried on 4 rows only",
            id="a sample",
        ),
        pytest.param(
            {"rows": 3, "tokens": TOKENS, "notes": ["The template fails."], "remedy": "Give another model"},
            "The template fails.",
            id="a template that fails",
        ),
        pytest.param({}, "Its rows have not been read.", id="no row"),
    ],
)
def test_all_is_well_is_not_said_of_rows_that_were_not_read(result: dict[str, Any], instead: str) -> None:
    text = said(**result)
    assert "No problems were found in its rows" not in text
    assert instead in text


def test_an_inspection_that_still_runs_says_nothing_of_the_rows() -> None:
    text = DatasetReport(run_id="id", next="call again").text()
    assert text == "Its rows have not been read.\nNext: call again"


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_cancelled_inspection_says_so_and_how_to_repeat_it(
    service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    async def cancel(events: Sequence[Event]) -> None:
        for folder in (service.settings.home / "runs").glob("*-inspect-*"):
            await service.cancel(folder.name)

    context = ToolContext(service, PathPolicy.from_record(None, service.settings.home), cancel)
    report = await inspect_dataset(context, str(dataset), str(tiny_model), wait_s=60)
    assert report.text() == (
        "Its rows have not been read.\n"
        "Next: The inspection is cancelled: call inspect_dataset again with the same arguments."
    )


@pytest.mark.anyio
async def test_a_repair_that_was_given_is_told_as_set(
    service: TrainingService, tiny_model: Path, tmp_path: Path
) -> None:
    data = tmp_path / "rows.jsonl"
    row = '{"prompt": "Where?", "completion": "Here, at the desk."}'
    data.write_text("\n".join([row, row, "{broken"]), encoding="utf-8")

    async def show(events: Sequence[Event]) -> None:
        pass

    context = ToolContext(service, PathPolicy.from_record(None, service.settings.home), show)
    report = await inspect_dataset(context, str(data), str(tiny_model), settings={"dedupe": "near"})
    assert 'dedupe="exact" (is set)' in report.text() and 'on_bad_rows="skip" (is set)' not in report.text()
    report = await inspect_dataset(
        context, str(data), str(tiny_model), on_bad_rows="skip", settings={"dedupe": "exact"}
    )
    assert 'on_bad_rows="skip" (is set)' in report.text() and report.next == "train with the same arguments."
