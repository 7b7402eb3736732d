"""The line before a device, across processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from backpropagate.training.runs.device_queue import DeviceQueue

HOLD = """
import sys
from pathlib import Path
from backpropagate.training.runs.device_queue import DeviceQueue
line = DeviceQueue(Path(sys.argv[1]), "cpu")
line.join("b"); line.hold_place("b")
if sys.argv[2] == "take":
    line.leave("b"); assert line.take_unless_busy(["cpu"])
if sys.argv[2] == "wait":
    line.try_take("b", [])
print("ready", flush=True)
if sys.argv[2] == "check":
    sys.stdin.readline(); line.try_take("b", []); print("asked", flush=True)
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


def in_line(folder: Path, run_id: str, lane: str = "cpu") -> DeviceQueue:
    line = DeviceQueue(folder, lane)
    line.join(run_id)
    line.hold_place(run_id)
    return line


def test_first_come_first_served(tmp_path: Path) -> None:
    a = in_line(tmp_path, "a")
    assert a.try_take("a", []) is None  # ready, and there is no slot
    waiting = other_process(tmp_path, "wait")
    c = in_line(tmp_path, "c")
    assert c.ahead("c") == 2
    assert c.try_take("c", ["cpu"]) is None
    assert a.try_take("a", ["cpu"]) == "cpu"
    a.release()
    assert c.try_take("c", ["cpu"]) is None
    end(waiting)  # whoever dies in line no longer stands in it
    assert c.try_take("c", ["cpu"]) == "cpu"


def test_whoever_is_not_ready_is_passed_and_keeps_its_place(tmp_path: Path) -> None:
    waiting = other_process(tmp_path, "check")
    c, d = in_line(tmp_path, "c"), in_line(tmp_path, "d")
    assert c.try_take("c", ["cpu"]) == "cpu"
    assert d.try_take("d", ["cpu"]) is None and d.ahead("d") == 0
    assert waiting.stdin
    waiting.stdin.write("\n")  # its data has been checked
    waiting.stdin.flush()
    assert waiting.stdout and waiting.stdout.readline() == "asked\n"
    assert d.ahead("d") == 1
    c.release()
    assert d.try_take("d", ["cpu"]) is None
    end(waiting)


def test_a_slot_is_one_processs_and_free_when_that_is_killed(tmp_path: Path) -> None:
    holder = other_process(tmp_path, "take")
    line = in_line(tmp_path, "a")
    assert line.try_take("a", ["cpu"]) is None
    end(holder)
    assert line.try_take("a", ["cpu"]) == "cpu"


def test_two_gpus_serve_two_runs(tmp_path: Path) -> None:
    lines = {run_id: in_line(tmp_path, run_id, "cuda") for run_id in ("a", "b", "c")}
    gpus = ["GPU-1", "GPU-2"]
    assert [line.try_take(run_id, gpus) for run_id, line in lines.items()] == ["GPU-1", "GPU-2", None]
