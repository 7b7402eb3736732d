"""What a training does before its first step: the examples, the plan, the model.

A later attempt takes the examples and the plan of the first one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config.specs import TrainSpec
from ..data.prepare import Prepared
from ..hardware.devices import CPU
from ..models.base_identity import BaseIdentity, identified
from ..runs.kinds import device_request
from .context import RunContext
from .examples import (
    examples,
    examples_again,
    tokenizer_of,
    warn_about_data,
    warn_about_evaluation,
    warn_about_memory,
    warn_about_the_end,
)
from .nodes import nodes_of
from .ranks import OtherRanks
from .track import track
from .trained_base import require_trained_base, trained_revision

if TYPE_CHECKING:
    from ..engine.loaded_model import LoadedModel
    from ..engine.plan import Plan


@dataclass(frozen=True)
class Ready:
    """The inputs of the engine."""

    spec: TrainSpec
    tokenizer: Any
    data: Prepared
    plan: Plan


def ready_model(
    context: RunContext, spec: TrainSpec, planned: dict[str, Any] | None, others: OtherRanks | None
) -> tuple[Ready, LoadedModel]:
    """What the engine is given, and the model with its new adapter.

    Args:
        planned: the plan of an earlier attempt.
    """
    folder = context.model_folder(revision=trained_revision(context.run, spec))
    require_trained_base(context, spec, folder)
    if planned is not None:
        ready = _prepare_again(context, spec, folder, planned)
        return ready, _open(context, ready.plan, others)
    with identified(folder, context.should_stop) as identity:
        ready = _prepare(context, spec, folder)
        model = _open(context, ready.plan, others)
        _write_provenance(context, ready, identity)
    return ready, model


def _prepare(context: RunContext, spec: TrainSpec, model: Path) -> Ready:
    tokenizer, threads = tokenizer_of(context, spec, model)
    data = examples(context, spec, tokenizer, model)
    warn_about_data(context, data)
    warn_about_evaluation(context, spec.evaluation, len(data.held_out))
    warn_about_the_end(context, tokenizer, model)

    from ..engine.planner import choose_plan, this_machine
    from ..planning.duration import long_evaluation
    from .save_adapter import base_model_name

    plan, reasons = choose_plan(
        spec,
        this_machine(threads, processes(context, spec), context.recorder.devices),
        examples=len(data.train),
        held_out=len(data.held_out),
        model=model,
        adapter=context.run.path / ".adapter-of-the-engine",
        base_model_name=base_model_name(spec, model),
        continue_from=_parent_adapter(context, spec),
        lengths=data.train.lengths().tokens.tolist(),
        trained_share=data.summary.trained_share or None,
    )
    warn_about_memory(context, spec.training, plan)
    if plan.training.steps is not None:
        trained = plan.training.steps * plan.batch_size * plan.training.gradient_accumulation_steps
        for told in long_evaluation(trained, len(data.held_out), len(data.train) + len(data.held_out)):
            context.recorder.warn(told)
    plan = replace(plan, tokens_key=data.key)
    context.run.write_plan({**plan.record(), "reasons": reasons})
    return Ready(spec, tokenizer, data, plan)


def _prepare_again(context: RunContext, spec: TrainSpec, model: Path, planned: dict[str, Any]) -> Ready:
    """The examples and the plan of the first attempt.

    Raises:
        DatasetError: the dataset has changed, and its tokens are no longer in the cache.
    """
    from ..engine.plan import Plan

    tokenizer, _ = tokenizer_of(context, spec, model)
    plan = replace(Plan.from_record(planned), model=model, resume=True)
    plan = plan.changed(gpus=sum(processes(context, spec)))  # a checkpoint is for any number
    data = examples_again(context, spec, tokenizer, model, plan.tokens_key)
    return Ready(spec, tokenizer, data, plan)


def processes(context: RunContext, spec: TrainSpec) -> list[int]:
    """Of each node, the worker's first: one for each GPU that was given, or as many as it asks of a CPU."""
    if context.hosts is not None:
        return context.hosts.processes
    devices = context.recorder.devices
    here = device_request(spec).processes if devices == (CPU,) else len(devices)
    return [here] * nodes_of(context.run)


def _parent_adapter(context: RunContext, spec: TrainSpec) -> Path | None:
    return None if spec.parent is None else context.run.path.parent / spec.parent / "adapter"


def _open(context: RunContext, plan: Plan, others: OtherRanks | None) -> LoadedModel:
    from ..engine.open_model import open_model
    from ..engine.parallel.ranks import ALONE

    context.stop_if_asked()
    track(context)
    model = open_model(plan, context.report, ALONE if others is None else others.join())
    context.require_permitted()
    return model


def _write_provenance(context: RunContext, ready: Ready, identity: Callable[[], BaseIdentity]) -> None:
    """Once the base is hashed, which goes on while it is loaded."""
    from .provenance import provenance

    context.recorder.phase("loading", "hashing the base model's weights")
    context.run.write_provenance(provenance(ready.spec, ready.plan, ready.data, identity()))
    context.require_permitted()  # what was hashed is what was loaded
