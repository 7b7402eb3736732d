"""One case of gpu_streaming.py in a process of its own, with only so much of the card's memory free."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from memory_hog import only_free


def settings_of(case: str) -> dict[str, str]:
    return dict(setting.split("=") for setting in case.split(":")[1:])


def in_process(case: str, window_s: float = 3.0, warm_up_s: float = 0.0) -> dict[str, Any]:
    """What it measured; of a case that failed, the error in place of the recomputation.

    Args:
        window_s: least seconds of each of its three windows.
        warm_up_s: seconds of steps before the first.
    """
    asked = settings_of(case)
    program = str(Path(__file__).with_name("gpu_streaming.py"))
    with only_free(float(asked["free"])) if "free" in asked else nullcontext():
        command = [sys.executable, program, "--here", case, str(window_s), str(warm_up_s)]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return {"case": case, "recompute": (done.stderr.strip().splitlines() or ["?"])[-1][:150]}
    return json.loads(done.stdout.splitlines()[-1])
