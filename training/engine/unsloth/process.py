"""The process in which Unsloth trains: its job, its start in another Python, and the line to it."""

from __future__ import annotations

import json
import os
import subprocess
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from ...config.settings import load_settings
from ...data.tokens.example import Example
from ...planning.decoder_shape import targeted
from ...planning.step_order import StepOrder
from ...untrusted import shown_path
from ..loaded_model import UnavailableError
from ..loop.lr_schedule import warmup_steps
from ..loop.packing import is_worth_evaluating_before, total_steps
from ..plan import Data, Plan
from . import child as unsloth_child

LEAVING_S = 10.0  # for the process to see that its stdin has ended


def interpreter() -> Path:
    """The Python of the environment that has Unsloth.

    Raises:
        UnavailableError: none is set, or the one that is does not exist.
    """
    python = load_settings().unsloth.python
    if python is None:
        raise UnavailableError("BACKPROPAGATE_UNSLOTH__PYTHON is not set")
    path = Path(python).expanduser()
    if not path.is_file():
        raise UnavailableError(
            f"BACKPROPAGATE_UNSLOTH__PYTHON names {shown_path(python)}, which does not exist"
        )
    return path


def write_job(folder: Path, plan: Plan, data: Data, order: StepOrder) -> Path:
    """Write what the process needs into a folder: examples, their order over the whole run, and the plan.

    Returns:
        The job's file.
    """
    steps = total_steps(plan, order)
    targets = plan.lora.target_modules
    job = {
        **plan.record(),
        "steps": steps,
        "warmup_steps": min(warmup_steps(plan, steps), steps - 1),
        "target_modules": list(targets if isinstance(targets, list) else targeted(plan.lora)),
        "order": [row for step in range(steps) for row in order.examples(step)],
        "held_out": len(data.held_out),
        "evaluate_before": is_worth_evaluating_before(data, order, steps),
    }
    _write_examples(folder / "train", data.train)
    _write_examples(folder / "held_out", data.held_out)
    path = folder / "job.json"
    path.write_text(json.dumps(job), encoding="utf-8")
    return path


def _write_examples(path: Path, examples: Sequence[Example]) -> None:
    """`.input_ids` and `.labels`: int32, example after example; `.ends`: int64, where each one ends."""
    ends, end = array("q"), 0
    with open(f"{path}.input_ids", "wb") as tokens, open(f"{path}.labels", "wb") as labels:
        for example in examples:
            array("i", example.input_ids).tofile(tokens)
            array("i", example.labels).tofile(labels)
            end += len(example.input_ids)
            ends.append(end)
    with open(f"{path}.ends", "wb") as file:
        ends.tofile(file)


class UnslothProcess:
    """The process, as a context; it ends with it, and with the process that started it.

    Args:
        python: the interpreter.
        job: as `write_job` made it; its folder is the working folder.

    Raises:
        UnavailableError: the interpreter cannot be started.
    """

    def __init__(self, python: Path, job: Path) -> None:
        # -I: nothing of the working folder, and nothing beside the module itself, is imported.
        command = [str(python), "-I", "-u", "-X", "utf8", str(unsloth_child.__file__), str(job)]
        environment = os.environ | {
            "HF_HUB_OFFLINE": "1",
            "UNSLOTH_DISABLE_STATISTICS": "1",
            "UNSLOTH_COMPILE_LOCATION": str(job.parent / "compiled"),
        }
        try:
            self._process = subprocess.Popen(
                command,
                cwd=job.parent,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise UnavailableError(f"{shown_path(command[0])} cannot be started ({reason})") from error

    def __enter__(self) -> UnslothProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(LEAVING_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def messages(self) -> Iterator[dict[str, Any]]:
        """What the process tells, until it ends."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            yield json.loads(line)

    def answer(self, go_on: bool) -> None:
        """Answer a step: it waits for that. If it has died meanwhile, the end of its messages says so."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.write("go\n" if go_on else "stop\n")
            self._process.stdin.flush()

    def exit_code(self) -> int:
        """Wait for the end."""
        return self._process.wait()
