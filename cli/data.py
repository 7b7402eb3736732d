"""`backprop data`: what repeats in a dataset or is shared with another, and a split into two files."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ..training.config.settings import load_settings
from ..training.config.specs import InspectSpec
from ..training.data.report.overlap import DuplicateReport, duplicate_report
from ..training.data.rewrite.split_file import split_files
from ..training.errors import DatasetValidationError
from ..training.files.paths import PathPolicy
from ..training.requests.argument_paths import with_resolved_paths
from ..training.requests.inspect import inspect_spec
from ..training.untrusted import shown_path
from .completion import complete_path
from .options import given, named_options
from .runs import as_json_option
from .wording import as_options
from .wrapped import say, say_json

READING = ("columns", "encoding", "separator", "split")
"""How a file is read."""


@click.group("data")
def data() -> None:
    """Look at dataset files, and split them."""


def spec_of(dataset: str, values: dict[str, Any]) -> InspectSpec:
    """The dataset with its settings, with absolute, permitted paths."""
    settings = load_settings()
    arguments = with_resolved_paths({**given(values), "dataset": dataset}, settings)
    return inspect_spec(settings, arguments=arguments, preview=0)


def new_file(path: str, argument: str) -> Path:
    """The path of a file to write; raises PathForbiddenError where none may be written."""
    return Path(PathPolicy.for_person(load_settings().home).resolve(path, argument, write=True))


@data.command("split")
@click.argument("dataset", shell_complete=complete_path)
@click.option("--out-train", metavar="FILE", help="Rows to train on. Default: NAME.train.jsonl here.")
@click.option("--out-heldout", metavar="FILE", help="Held-out rows. Default: NAME.heldout.jsonl here.")
@click.option("--heldout-ratio", hidden=True)
@named_options("held_out", "seed", "samples", "dedupe", "on_bad_rows", *READING)
@as_json_option
def split(
    dataset: str,
    out_train: str | None,
    out_heldout: str | None,
    heldout_ratio: str | None,
    as_json: bool,
    **values: Any,
) -> None:
    """Split DATASET into rows to train on and held-out rows, as JSON Lines.

    The seed decides; equal and nearly equal rows stay on one side.
    """
    if heldout_ratio is not None:
        values["held_out"] = (*(values["held_out"] or ()), heldout_ratio)
    spec = spec_of(dataset, values)
    name = Path(dataset).name.partition(".")[0]
    files = [
        new_file(given_path or f"{name}.{side}.jsonl", argument)
        for given_path, side, argument in (
            (out_train, "train", "out_train"),
            (out_heldout, "heldout", "out_heldout"),
        )
    ]
    done = split_files(spec.data, *files, seed=spec.seed)
    left_out = [found.sentence() for found in done.left_out]
    if as_json:
        facts = {"train": str(files[0]), "held_out": str(files[1]), "left_out": left_out}
        say_json(json.dumps({**facts, "rows": [done.rows, done.train, done.held_out]}, indent=1))
        return
    say(f"{done.train} rows to train on: {shown_path(files[0])}")
    say(f"{done.held_out} held-out rows: {shown_path(files[1])}")
    for sentence in left_out:
        say(f"Left out: {sentence}.", err=True)


@data.command("report")
@click.argument("dataset", shell_complete=complete_path)
@click.option(
    "--against",
    metavar="FILE",
    shell_complete=complete_path,
    help="An evaluation dataset: which of its rows does DATASET give away?",
)
@click.option("--fail-on-bad-rows", is_flag=True, help="Exit code 1 if rows cannot be used.")
@click.option("--fail-on-dups", is_flag=True, help="Exit code 1 if rows repeat others.")
@click.option(
    "--fail-on-contamination", is_flag=True, help="Exit code 1 if rows of --against are in DATASET."
)
@click.option(
    "--allow",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of rows up to which these are no failure.",
)
@named_options(*READING)
@as_json_option
def report(
    dataset: str,
    against: str | None,
    fail_on_bad_rows: bool,
    fail_on_dups: bool,
    fail_on_contamination: bool,
    allow: float,
    as_json: bool,
    **values: Any,
) -> None:
    """Count the unusable and repeated rows of DATASET, and those that it shares with another dataset."""
    if fail_on_contamination and against is None:
        raise click.UsageError("--fail-on-contamination needs --against FILE.")
    own = spec_of(dataset, values).data
    other = spec_of(against, values).data if against else None
    done = duplicate_report(own, other)
    if as_json:
        say_json(json.dumps(_record(done), indent=1))
    else:
        _print(done, against)
    if not done.usable or (done.against and not done.against.rows):
        what = "evaluation dataset" if done.usable else "dataset"
        raise DatasetValidationError(f"The {what} has no usable row: nothing was compared.")
    bad, repeated = 1 - done.usable / done.rows, done.similar / done.usable
    given_away = done.against.share if done.against else 0.0
    gates = [
        (fail_on_bad_rows, bad, "of the rows cannot be used", "on_bad_rows=skip trains without them."),
        (fail_on_dups, repeated, "of the rows repeat others", "dedupe=near trains without them."),
        (
            fail_on_contamination,
            given_away,
            "of the rows of the evaluation dataset are contaminated",
            "Remove these rows from one of the two datasets.",
        ),
    ]
    failed = [(f"{share:.1%} {what}", help) for asked, share, what, help in gates if asked and share > allow]
    if failed:
        raise DatasetValidationError(
            f"{'; '.join(what for what, _ in failed)}; allowed are {allow:.1%}.",
            hint=" ".join(help for _, help in failed),
        )


def _record(done: DuplicateReport) -> dict[str, Any]:
    return {
        "rows": done.rows,
        "usable": done.usable,
        "equal": done.equal,
        "similar": done.similar,
        "findings": [found.as_dict(done.usable) for found in done.findings.sorted()],
        "against": asdict(done.against) | {"share": done.against.share} if done.against else None,
    }


def _print(done: DuplicateReport, against: str | None) -> None:
    say(f"{done.rows} rows, {done.usable} usable.")
    for found in done.findings.sorted():
        say(f"  {as_options(found.sentence())}.", 4)
    say(f"{done.equal} rows equal an earlier one; {done.similar} equal or nearly equal one.")
    overlap = done.against
    if overlap is None:
        return
    say(
        f"Of the {overlap.rows} rows of {shown_path(str(against))}, {overlap.contaminated} "
        f"({overlap.share:.1%}) are given away: {overlap.equal} equal, {overlap.similar} equal or "
        f"nearly equal, {overlap.same_question} with the same question."
    )
    if overlap.unusable:
        say(f"  {overlap.unusable} more of its rows cannot be used, and were not compared.", 4)
    for pair in overlap.pairs:
        say(f"  {pair.kind}: {pair.evaluation} and {pair.training}", 4)
