"""The line before a device, across processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from backpropagate.training.runs.slots import Line

HOLD = """
import sys
from pathlib import Path
from backpropagate.training.runs.slots import Line
line = Line(Path(sys.argv[1]), "cpu")
line.join("b"); line.hold_place("b")
if sys.argv[2] == "take":
    line.leave("b"); assert line.take_unless_busy(["cpu"])
print("ready", flush=True)
sys.stdin.read()
"""


def other_process(folder: Path, what: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), what],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stdout.readline() == "ready\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_first_come_first_served(tmp_path: Path) -> None:
    line = Line(tmp_path, "cpu")
    line.join("a")
    waiting = other_process(tmp_path, "wait")
    line.join("c")
    assert line.ahead("c") == 2
    assert line.try_take("c", ["cpu"]) is None
    assert line.try_take("a", ["cpu"]) == "cpu"
    line.release()
    assert line.try_take("c", ["cpu"]) is None
    end(waiting)  # whoever dies in line no longer stands in it
    assert line.try_take("c", ["cpu"]) == "cpu"


def test_a_slot_is_one_processs_and_free_when_that_is_killed(tmp_path: Path) -> None:
    line = Line(tmp_path, "cpu")
    holder = other_process(tmp_path, "take")
    line.join("a")
    assert line.try_take("a", ["cpu"]) is None
    end(holder)
    assert line.try_take("a", ["cpu"]) == "cpu"


def test_two_gpus_serve_two_runs(tmp_path: Path) -> None:
    line = Line(tmp_path, "cuda")
    for run_id in ("a", "b", "c"):
        line.join(run_id)
    gpus = ["GPU-1", "GPU-2"]
    assert [line.try_take(run_id, gpus) for run_id in ("a", "b", "c")] == ["GPU-1", "GPU-2", None]
