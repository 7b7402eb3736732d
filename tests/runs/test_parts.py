"""What a killed export had written aside is removed, whichever version wrote the run folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from backpropagate.training.runs.folder import RunFolder


@pytest.mark.parametrize("noted_in", ["parts.json", "plan.json"])
def test_what_was_written_aside_is_removed(noted_in: str, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    file, folder, kept = tmp_path / ".model.run.part", tmp_path / ".merged.run.part", tmp_path / "model.gguf"
    foreign = [tmp_path / name for name in (".model.part", ".model.other.part", "run.part")]
    for path in (file, kept, *foreign):
        path.write_bytes(b"x")
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    if noted_in == "parts.json":
        run.write_parts([file, folder, *foreign])
        assert run.plan() is None
    else:
        run.write_plan({"parts": [str(file), str(folder), *map(str, foreign), 5]})
    run.discard_parts()
    assert not file.exists() and not folder.exists() and kept.exists()
    assert all(path.exists() for path in foreign), "only what has the run's id in its name is the run's"
    run.discard_parts()  # again, as a resume after a second kill does
