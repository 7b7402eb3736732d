"""Takes over the runs of an earlier multi-run, or a training as run 1, into the folder of a new one.

Afterwards the new folder has all that it needs: the earlier one may be removed.
"""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path

from ..config.ledger import read_ledger, write_ledger
from ..config.specs import MultiRunSpec, TrainSpec
from ..data.tokens.kept_rows import TASKS, KeptRows, read_kept_rows
from ..errors import InputError, RunNotFoundError
from ..files.atomic_folder import write_folder
from ..next_step import then
from ..requests.multi_run_parent import name_of_training
from ..runs.folder import RunFolder
from .context import RunContext
from .examples import examples_again, tokenizer_of
from .multi_run_tasks import FirstRun, kept_rows, new_task

MERGES = "merges"


def merge_path(run: Path, number: int) -> Path:
    """The merge after a run, from 1."""
    return run / MERGES / f"run-{number:03d}"


def take_over(context: RunContext, spec: MultiRunSpec, model: Path) -> FirstRun | None:
    """Copy rows, merges and ledger of the parent's runs; what is known of it if it is a training.

    Raises:
        RunNotFoundError: the parent has been removed.
        RunFolderError, DatasetError: its rows are no longer there.
    """
    if spec.parent is None:
        return None
    parent = RunFolder(context.run.path.parent / spec.parent)
    if not parent.path.is_dir():
        raise RunNotFoundError(
            f"Run {spec.parent} was removed before this one began.", next=then("list_runs")
        )
    context.recorder.phase("preparing", f"taking over {spec.earlier} runs of {spec.parent}")
    training = parent.request_now()
    if isinstance(training, TrainSpec):
        return _take_training(context, spec, parent, training, model)
    _take_runs(spec, parent, context.run)
    return None


def _take_runs(spec: MultiRunSpec, parent: RunFolder, own: RunFolder) -> None:
    """The ledger is written last: it names what is there."""
    ledger = read_ledger(parent.path)
    if ledger is None or len(ledger.kept) < spec.earlier:
        raise InputError(f"The ledger of run {spec.parent} has fewer than {spec.earlier} runs.")
    for number in range(1, spec.earlier + 1):
        read_kept_rows(parent.path / TASKS, number).write(own.path / TASKS, number)
        source = merge_path(parent.path, number)
        write_folder(merge_path(own.path, number), partial(_link_files, source))
    scale = spec.multi.merge_scale if spec.num_runs else None
    taken = ledger.after(spec.earlier)
    write_ledger(own.path, taken.model_copy(update={"merge_scale": scale or ledger.merge_scale}))


def _link_files(source: Path, target: Path) -> None:
    """The files of a merge never change, so both folders can share them."""
    for file in source.iterdir():
        try:
            os.link(file, target / file.name)
        except OSError:  # another disk, or a file system without links
            shutil.copyfile(file, target / file.name)


def _take_training(
    context: RunContext, spec: MultiRunSpec, parent: RunFolder, training: TrainSpec, model: Path
) -> FirstRun:
    """Its adapter becomes the first merge, its held-out rows those of task 1."""
    tokenizer, _ = tokenizer_of(context, training, model)
    from safetensors.torch import load

    from ..merging.slao import SLAOConfig, SLAOMerger

    plan = parent.plan() or {}
    data = examples_again(context, training, tokenizer, model, str(plan.get("tokens_key")))
    train, held_out = range(len(data.train)), range(len(data.held_out))
    task = new_task(name_of_training(training), data, train, held_out, spec.multi.rows_per_task)
    kept_rows(task).write(context.run.path / TASKS, 1)
    merger = SLAOMerger(SLAOConfig(mode=spec.multi.merge_mode))
    weights = load((parent.adapter_path / "adapter_model.safetensors").read_bytes())
    merger.initialize({name: tensor.float() for name, tensor in weights.items()})
    merger.save(merge_path(context.run.path, 1))
    result = parent.state().result
    return FirstRun(getattr(result, "steps", 0), float(plan["learning_rate"]))


def taken_over(context: RunContext, spec: MultiRunSpec) -> list[KeptRows]:
    """The rows of the runs that were taken over."""
    return [read_kept_rows(context.run.path / TASKS, number) for number in range(1, spec.earlier + 1)]
