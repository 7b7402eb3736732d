"""The specs of the runs that a plan asks: an inspection of its dataset, and a probe of a few steps."""

from __future__ import annotations

from ..config.specs import InspectSpec, ProbeSpec, TrainSpec
from ..config.training_plan import TrainingPlan
from ..errors import ErrorRecord, ModelLoadError


def inspection_of(spec: TrainSpec) -> InspectSpec | None:
    """The inspection of a training's dataset, as the user asks for it by default; None without one.

    An equal one that the user has seen before the plan answers at once.
    """
    if spec.data.source is None:
        return None
    return InspectSpec(roots=spec.roots, model=spec.model, data=spec.data, seed=spec.training.seed)


def is_of_the_model(error: ErrorRecord) -> bool:
    """Whether an inspection failed because of the model's tokenizer: the sizes are still known."""
    return error.code == ModelLoadError.code


def probe_of(spec: TrainSpec, plan: TrainingPlan) -> ProbeSpec:
    """The probe of a training, with weights in 4 bits where the plan has chosen them."""
    model = spec.model.model_copy(update={"load_in_4bit": plan.settings["load_in_4bit"]})
    return ProbeSpec(
        roots=spec.roots,
        model=model,
        data=spec.data,
        lora=spec.lora,
        training=spec.training,
    )
