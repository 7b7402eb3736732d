"""How a training would run, before it is submitted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..config.results import InspectResult
from ..config.settings import Settings
from ..config.specs import TrainingSpec, TrainSpec
from ..config.training_plan import TrainingPlan
from ..files.paths import PathPolicy
from ..runs.kinds import gpus_of
from ..runs.store import RunStore
from .checks import absolute, permit_links

if TYPE_CHECKING:
    from ..planning.data_facts import DataFacts


def plan_of(
    spec: TrainSpec, inspected: InspectResult | None, store: RunStore, settings: Settings
) -> TrainingPlan:
    """See `TrainingService.plan`."""
    from ..planning.machine import machine_for
    from ..planning.plan_training import plan_training

    spec = spec.model_copy(update={"model": absolute(spec.model, weights=False)})
    policy = PathPolicy.from_record(spec.roots, settings.home)
    permit_links(spec, policy)
    data = _data_facts(spec, inspected, policy)
    machine = machine_for(spec.training.device, gpus=gpus_of(spec))
    given = "load_in_4bit" in spec.model.model_fields_set
    return plan_training(spec, store, machine, data, four_bit_is_given=given)


def _data_facts(spec: TrainingSpec, inspected: InspectResult | None, policy: PathPolicy) -> DataFacts:
    """What is known of the examples of a training."""
    from ..data.local_source import local_source
    from ..planning.data_facts import NOTHING, by_size, facts_of

    if inspected is not None and inspected.usable:
        return facts_of(inspected, spec.data)
    if spec.data.source is None:
        return NOTHING
    source = local_source(spec.data, policy.permit)
    return NOTHING if source is None else by_size(source.size(), "it has not been inspected")
