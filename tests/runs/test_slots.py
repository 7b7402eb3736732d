"""The line before a device, across processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from backpropagate.training.runs.device_queue import DeviceQueue
from backpropagate.training.runs.folder import RunFolder

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


GPUS = ["GPU-1", "GPU-2", "GPU-3", "GPU-4"]


def test_several_gpus_are_taken_at_once_or_not_at_all(tmp_path: Path) -> None:
    one, four, two = (in_line(tmp_path, run_id, "cuda") for run_id in ("one", "four", "two"))
    assert one.try_take_several("one", GPUS, 1) == ["GPU-1"]
    assert four.try_take_several("four", GPUS, 4) == []  # three are free, and it holds none of them
    assert two.take_several_unless_busy(GPUS, 3) == ["GPU-2", "GPU-3", "GPU-4"]
    two.release()
    one.release()
    assert four.try_take_several("four", GPUS, 4) == GPUS


def test_a_run_that_needs_many_is_not_overtaken_by_those_that_need_few(tmp_path: Path) -> None:
    first, many = in_line(tmp_path, "first", "cuda"), in_line(tmp_path, "many", "cuda")
    assert first.try_take_several("first", GPUS, 1) == ["GPU-1"]
    assert many.try_take_several("many", GPUS, 4) == []
    few = [in_line(tmp_path, f"few-{number}", "cuda") for number in range(3)]
    assert [line.try_take_several(f"few-{i}", GPUS, 1) for i, line in enumerate(few)] == [[], [], []]
    first.release()
    assert [line.try_take_several(f"few-{i}", GPUS, 1) for i, line in enumerate(few)] == [[], [], []]
    assert many.try_take_several("many", GPUS, 4) == GPUS
    many.release()
    assert few[0].try_take_several("few-0", GPUS, 1) == ["GPU-1"]


def test_a_run_gives_back_all_gpus_but_the_first(tmp_path: Path) -> None:
    run, next_run = in_line(tmp_path, "run", "cuda"), in_line(tmp_path, "next", "cuda")
    assert run.try_take_several("run", GPUS, 4) == GPUS
    assert next_run.try_take_several("next", GPUS, 3) == []
    run.keep_first()
    assert next_run.try_take_several("next", GPUS, 3) == GPUS[1:]


def test_two_runs_that_need_all_but_one_both_come_to_their_turn(tmp_path: Path) -> None:
    lines = {run_id: in_line(tmp_path, run_id, "cuda") for run_id in ("a", "b")}
    turns: list[str] = []
    while len(turns) < 2:
        for run_id, line in lines.items():
            if run_id not in turns and line.try_take_several(run_id, GPUS, 3):
                turns.append(run_id)
                line.release()
    assert turns == ["a", "b"]


def test_the_lock_of_a_removed_run_is_nobodys_and_does_not_bring_its_folder_back(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "20261127T120000.000Z-tiny-abcd")
    waiting = run.lock()
    assert not waiting.try_acquire() and not run.path.exists()
    run.path.mkdir()
    (run.path / "spec.json").write_text("damaged")
    assert waiting.try_acquire() and (run.path / "spec.json").exists()
    waiting.release()
