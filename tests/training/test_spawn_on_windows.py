"""How a worker is started on Windows: out of the client's job where that is permitted."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from backpropagate.training.worker import spawn

BREAKAWAY, HIDDEN_CONSOLE, NO_CONSOLE = 0x01000000, 0x08000000, 0x00000008


@pytest.mark.parametrize(
    ("job_permits", "said"), [(True, ["survives-client"]), (False, ["survives-client", "dies-with-client"])]
)
def test_a_worker_leaves_the_clients_job_or_says_that_it_dies_with_it(
    job_permits: bool, said: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started: list[tuple[str, int]] = []

    def popen(command: list[str], *, creationflags: int, **options: Any) -> None:
        started.append((command[-1], creationflags))
        if creationflags & BREAKAWAY and not job_permits:
            raise PermissionError(5, "Access is denied")

    monkeypatch.setattr(subprocess, "Popen", popen)
    spawn._spawn_on_windows(["python"], cwd=tmp_path)  # pyright: ignore[reportPrivateUsage]
    assert [word for word, _ in started] == said
    assert not started[-1][1] & BREAKAWAY or job_permits
    assert all(flags & HIDDEN_CONSOLE and not flags & NO_CONSOLE for _, flags in started)
