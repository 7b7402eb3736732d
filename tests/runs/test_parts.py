"""What a killed export had written aside is removed, whichever version wrote the run folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from backpropagate.training.runs.folder import RunFolder


@pytest.mark.parametrize("noted_in", ["parts.json", "plan.json"])
def test_what_was_written_aside_is_removed(noted_in: str, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    file, folder, kept = tmp_path / ".model.part", tmp_path / ".merged.part", tmp_path / "model.gguf"
    for path in (file, kept):
        path.write_bytes(b"x")
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    if noted_in == "parts.json":
        run.write_parts([file, folder])
        assert run.plan() is None
    else:
        run.write_plan({"parts": [str(file), str(folder)]})
    run.discard_parts()
    assert not file.exists() and not folder.exists() and kept.exists()
    run.discard_parts()  # again, as a resume after a second kill does
