"""How a training would run, before it is submitted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..config.results import InspectResult
from ..config.settings import Settings
from ..config.specs import TrainingSpec, TrainSpec
from ..config.training_plan import TrainingPlan
from ..data.row_counts import rows_of
from ..files.paths import PathPolicy
from ..next_step import then
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
    plan = plan_training(spec, store, machine, data, four_bit_is_given=given)
    return plan if inspected is None else _first_repaired(plan, spec, inspected)


def _first_repaired(plan: TrainingPlan, spec: TrainSpec, inspected: InspectResult) -> TrainingPlan:
    """The plan; of a training that would be refused for its rows it says so, and inspects them next."""
    bad = sum(found.count for found in inspected.findings if found.severity == "error")
    if not bad or not inspected.remedy or (inspected.usable and spec.data.on_bad_rows == "skip"):
        return plan  # what is missing of the model, for instance, its own loading tells
    why = f"{bad:,} of {rows_of(inspected.rows)} cannot be used"
    note = f"This training would be refused: {why}. {inspected.remedy}."
    of_the_data = type(spec.data).model_fields.keys() | {"dataset", "model", "revision"}
    given = {name: value for name, value in plan.next.arguments.items() if name in of_the_data}
    return plan.model_copy(update={"notes": [note, *plan.notes], "next": then("inspect", **given)})


def _data_facts(spec: TrainingSpec, inspected: InspectResult | None, policy: PathPolicy) -> DataFacts:
    """What is known of the examples of a training."""
    from ..data.local_source import local_source
    from ..planning.data_facts import NOTHING, by_size, facts_of

    if inspected is not None and inspected.usable:
        return facts_of(inspected, spec.data)
    if spec.data.source is None:
        return NOTHING
    source = local_source(spec.data, policy.permit)
    why = "it has not been inspected" if inspected is None else "none of its rows can be used as they are"
    return NOTHING if source is None else by_size(source.size(), why)
