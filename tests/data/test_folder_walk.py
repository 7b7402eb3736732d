"""Folders and patterns: the search for a dataset's files ends, and tells no name of another folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backpropagate.training.config.specs import DataGroup
from backpropagate.training.data.check import check
from backpropagate.training.data.cleaning.near_duplicates import NearDuplicates
from backpropagate.training.data.formats.reading import Read
from backpropagate.training.data.formats.recognise import recognise
from backpropagate.training.data.local_source import content_of
from backpropagate.training.data.readers import folder_walk
from backpropagate.training.data.readers.rows import Place
from backpropagate.training.data.readers.sources import Source, SourceFile, open_source
from backpropagate.training.data.report.inspection import inspect
from backpropagate.training.data.report.inspector import Inspector
from backpropagate.training.data.split.selection import select
from backpropagate.training.errors import DatasetError, PathForbiddenError, TrainingAbortedError
from backpropagate.training.files.paths import PathPolicy
from backpropagate.training.requests.dataset_source import resolved_source

ROW = '{"text": "a"}\n'


def tree(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(ROW)
    return folder


def names_of(source: str | Path) -> list[str]:
    return sorted(part.name for part in open_source(source).parts)


def test_a_pattern_through_links_that_lead_back_reads_each_file_once(tmp_path: Path) -> None:
    folder = tree(tmp_path / "two", "x.jsonl", "inner/y.jsonl")
    (folder / "a").symlink_to(folder)
    (folder / "inner/b").symlink_to(folder)
    assert len(names_of(folder / "**/*.jsonl")) == 2
    assert len(names_of(folder / "**/**/*.jsonl")) == 2
    assert names_of(folder) == ["inner/y.jsonl", "x.jsonl"]


@pytest.mark.parametrize(
    "pattern, found",
    [
        ("*.jsonl", ["a.jsonl"]),
        ("**/*.jsonl", ["a.jsonl", "one/a.jsonl", "one/b.jsonl", "one/two/a.jsonl"]),
        ("**", ["a.jsonl", "one/a.jsonl", "one/b.jsonl", "one/two/a.jsonl"]),
        ("one/**/a.jsonl", ["a.jsonl", "two/a.jsonl"]),
        ("*/a.jsonl", ["a.jsonl"]),
        ("**/two/*.jsonl", ["a.jsonl"]),
        ("o?e/[ab].jsonl", ["a.jsonl", "b.jsonl"]),
        ("*/*/a.jsonl", ["a.jsonl"]),
        (".*.jsonl", [".c.jsonl"]),
    ],
)
def test_a_pattern_finds_what_the_shell_finds(tmp_path: Path, pattern: str, found: list[str]) -> None:
    tree(tmp_path, "a.jsonl", ".c.jsonl", "one/a.jsonl", "one/b.jsonl", "one/two/a.jsonl", ".hid/a.jsonl")
    assert names_of(tmp_path / pattern) == found


@pytest.mark.parametrize("source", ["", "*.jsonl", "**/*.jsonl"])
def test_too_many_files_are_an_error_with_the_place_and_the_limit(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(tmp_path, *(f"{number}.jsonl" for number in range(20)))
    monkeypatch.setattr(folder_walk, "ENTRIES", 20)
    assert len(open_source(tmp_path / source).parts) == 20
    monkeypatch.setattr(folder_walk, "ENTRIES", 19)
    with pytest.raises(DatasetError, match=rf"{tmp_path.name} after 19 entries"):
        open_source(tmp_path / source)


def test_a_search_ends_when_its_call_is_cancelled(tmp_path: Path) -> None:
    tree(tmp_path, *(f"{number}.jsonl" for number in range(300)))
    for source in (str(tmp_path), str(tmp_path / "**/*.jsonl")):
        with pytest.raises(TrainingAbortedError, match="searched"):
            content_of(DataGroup(source=source), lambda path: None, lambda: True)


def test_a_hash_ends_when_its_call_is_cancelled(tmp_path: Path) -> None:
    asked = iter([False, True])
    data = DataGroup(source=str(tree(tmp_path, "a.jsonl") / "a.jsonl"))
    with pytest.raises(TrainingAbortedError, match="hashed"):
        content_of(data, lambda path: None, lambda: next(asked))


def test_more_files_than_16_bits_can_count_are_told_apart(tmp_path: Path) -> None:
    part = SourceFile(tree(tmp_path, "a.txt") / "a.txt", "a.txt")
    rows = [
        Read(number, file, Place("a.txt", 1), recognise({"text": "same"}, None))
        for number, file in enumerate((0, 70_000))
    ]
    with NearDuplicates() as index:
        inspector = Inspector(Source((part,) * 70_001), None, DataGroup(), 0)
        for row in rows:
            inspector.add(row, index, 2)
        assert [found["kind"] for found in inspector.finish(index).findings] == ["exact_duplicate"]
    assert select(rows, DataGroup(held_out=0.0), 0).reasons.tolist() == [0, 0]


def test_a_pattern_tells_no_name_outside_the_permitted_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "user"))
    inside = tree(tmp_path / "user/data", "a.jsonl", "sub/b.jsonl")
    tree(tmp_path / "outside", "SECRETNAME.jsonl", "SECRET[1].jsonl")
    (inside / "link").symlink_to(tmp_path / "outside")
    policy = PathPolicy.for_assistant([], tmp_path / "home")
    for pattern in (
        "*/../../../outside/*.jsonl",
        "../../outside/*",
        "../../outside/SECRET[1].jsonl",
        "link/*",
    ):
        with pytest.raises(PathForbiddenError) as error:
            given = resolved_source(str(inside / pattern), policy)
            open_source(given, permit=policy.permit)
        assert "SECRETNAME" not in error.value.sentence()


def test_a_refused_pattern_does_not_tell_whether_a_file_exists(tmp_path: Path) -> None:
    tree(tmp_path, "outside/a[1].jsonl", "in/a.jsonl")
    policy = PathPolicy.for_assistant([tmp_path / "in"], tmp_path / "home")
    messages: list[str] = []
    for name in ("a", "b"):
        with pytest.raises(PathForbiddenError) as error:
            resolved_source(str(tmp_path / f"in/../outside/{name}[1].jsonl"), policy)
        messages.append(error.value.sentence())
    assert messages[0] == messages[1]


def test_a_folder_that_a_pattern_may_not_look_into_is_left_out_and_named(tmp_path: Path) -> None:
    inside, outside = tree(tmp_path / "in", "a.jsonl"), tree(tmp_path / "out", "b.jsonl")
    (inside / "link").symlink_to(outside)

    def permit(path: Path) -> None:
        if not path.is_relative_to(inside):
            raise PathForbiddenError(f"{path} is outside.")

    for source in (inside, inside / "**/*.jsonl"):
        found = open_source(source, permit=permit)
        assert [part.name for part in found.parts] == ["a.jsonl"]
        assert found.notes == (f"Not searched (they may not be read): {inside / 'link'}.",)


def test_a_file_that_becomes_a_link_after_it_was_permitted_is_not_read(tmp_path: Path) -> None:
    folder = tree(tmp_path / "data", "in/a.jsonl", "in/z.jsonl")
    secret = tree(tmp_path / "secret", "z.jsonl")
    source = open_source(folder)
    (folder / "in/z.jsonl").unlink()
    (folder / "in/z.jsonl").symlink_to(secret / "z.jsonl")
    rows = iter(source)
    next(rows)
    with pytest.raises(DatasetError, match="become a link"):
        next(rows)


def test_a_folder_that_becomes_a_link_after_it_was_permitted_is_not_read(tmp_path: Path) -> None:
    folder = tree(tmp_path / "data", "in/z.jsonl", "in/p.parquet")
    secret = tree(tmp_path / "secret", "z.jsonl", "p.parquet")
    source = open_source([folder / "in/z.jsonl", folder / "in/p.parquet"])
    os.rename(folder / "in", folder / "old")
    (folder / "in").symlink_to(secret)
    for part in source.parts:
        for read in (part.content_hash, lambda part=part: list(part.rows())):
            with pytest.raises(DatasetError, match="become a link"):
                read()


def test_a_file_that_grows_while_it_is_inspected_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tree(tmp_path, "a.jsonl") / "a.jsonl"
    check(DataGroup(source=str(path)))
    events = iter([True])

    def append(_: object) -> None:
        if next(events, False):
            with path.open("a") as file:
                file.write(ROW)

    with pytest.raises(DatasetError, match="changed while it was read"):
        inspect(DataGroup(source=str(path)), None, report=append)
