"""A fine-tuning job of OpenAI's API as a training: the request that creates one, or a job that was saved.

| there | here |
|---|---|
| `n_epochs` | `epochs` |
| `batch_size` | `batch_size` |
| `learning_rate_multiplier` | `learning_rate_multiplier`: a factor of the rate that "auto" chooses |
| `seed` | `seed` |
| `training_file`, `validation_file` | `dataset`, `validation` |
| `suffix`, `metadata` | kept with the run |
| `method` | `supervised` only |

What the base rate of the multiplier is, OpenAI does not say. Here it is the rate that is chosen for the model
and the number of steps, since that is what a multiplier of 1 leaves. "auto" stands for not given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from ..config.arguments import shown_value, wanted_of
from ..config.specs import Group, JobRecord, SettingsGroup
from ..errors import InputError
from ..untrusted import short_name

Auto = Literal["auto"]
PARAMETER = re.compile(r"(?!int$|float$|str$)[a-z_]+", re.ASCII)
TUNED_NAME = re.compile(r"ft:[^:]+:[^:]*:([^:]*):[^:]+")

REPORTED = frozenset(
    {
        "created_at",
        "error",
        "estimated_finish",
        "fine_tuned_model",
        "finished_at",
        "id",
        "object",
        "organization_id",
        "result_files",
        "status",
        "trained_tokens",
    }
)
"""What a saved job says of its course: nothing to be mapped."""

PREFERRED = {"prompt": "input", "completion": "preferred_output"}
"""The `columns` that read OpenAI's preference rows as questions with the preferred answer."""


class Hyperparameters(SettingsGroup):
    n_epochs: Annotated[int, Field(ge=1, le=1000)] | Auto | None = None
    batch_size: Annotated[int, Field(ge=1, le=65_536)] | Auto | None = None
    learning_rate_multiplier: Annotated[float, Field(gt=0, le=100)] | Auto | None = None


class PreferenceHyperparameters(Hyperparameters):
    beta: Annotated[float, Field(ge=0)] | Auto | None = None


class SupervisedMethod(Group):
    hyperparameters: Hyperparameters | None = None


class PreferenceMethod(Group):
    hyperparameters: PreferenceHyperparameters | None = None


class Method(Group):
    type: Literal["supervised", "dpo", "reinforcement"]
    supervised: SupervisedMethod | None = None
    dpo: PreferenceMethod | None = None
    reinforcement: dict[str, Any] | None = None

    @property
    def hyperparameters(self) -> Hyperparameters | None:
        chosen = {"supervised": self.supervised, "dpo": self.dpo}.get(self.type)
        return chosen.hyperparameters if chosen else None


class JobRequest(Group):
    """A request for a job, with the names of OpenAI's API."""

    model: Annotated[str, Field(min_length=1, max_length=512)]
    training_file: Annotated[str, Field(min_length=1, max_length=512)]
    validation_file: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    suffix: Annotated[str, Field(max_length=64)] | None = None
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] | None = None
    hyperparameters: Hyperparameters | None = None
    method: Method | None = None
    integrations: list[dict[str, Any]] | None = None
    metadata: (
        Annotated[
            dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
            Field(max_length=16),
        ]
        | None
    ) = None

    @property
    def method_name(self) -> str:
        return self.method.type if self.method else "supervised"

    @property
    def asked(self) -> dict[str, float | int | str]:
        """The hyperparameters that are given; those of the method go before the older place of them."""
        places = [self.hyperparameters, self.method.hyperparameters if self.method else None]
        return {name: value for place in places if place for name, value in place if value is not None}

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of a training, by their flat names, without model and data."""
        names = {"n_epochs": "epochs"}
        given = {names.get(name, name): value for name, value in self.asked.items() if value != "auto"}
        given.pop("beta", None)
        return given if self.seed is None else {**given, "seed": self.seed}

    @property
    def record(self) -> JobRecord:
        return JobRecord(
            training_file=self.training_file,
            validation_file=self.validation_file,
            suffix=self.suffix or None,
            metadata=self.metadata or {},
            asked=self.asked,
        )


def job_request(given: Mapping[str, Any]) -> JobRequest:
    """A request, strictly: what is not known is refused.

    Raises:
        InputError: a name is unknown, or a value out of bounds.
    """
    try:
        return JobRequest.model_validate(given)
    except ValidationError as error:
        raise InputError(problem_of(error)) from None


def problem_of(error: ValidationError) -> str:
    """`hyperparameters.n_epochs: should be a valid integer or 'auto', not 'many'.`, of the first problem."""
    problems = [(_place(item["loc"]), item) for item in error.errors(include_url=False)]
    place, first = problems[0]
    if first["type"] == "extra_forbidden":
        return f"{place}: there is no such parameter here."
    if first["type"] == "missing":
        return f"{place}: is missing."
    wanted = dict.fromkeys(wanted_of(item) for where, item in problems if where == place)
    return f"{place}: {' or '.join(wanted)}, not {shown_value(first['input'])}."


def _place(location: tuple[int | str, ...]) -> str:
    """The parameter; pydantic adds the type that it tried of several."""
    names = [str(part) for part in location]
    if len(names) > 1 and not PARAMETER.fullmatch(names[-1]):
        names.pop()
    return ".".join(map(short_name, names))


@dataclass(frozen=True)
class SavedJob:
    """A job that was saved, or a request.

    Args:
        notes: what of it means nothing here, one sentence each.
    """

    request: JobRequest
    notes: list[str] = field(default_factory=list[str])


def saved_job(given: Mapping[str, Any]) -> SavedJob:
    """The request behind a saved job, or a request as it is; what means nothing here is named.

    Raises:
        InputError: it is neither, or a value is out of bounds.
    """
    if "model" not in given or "training_file" not in given:
        raise InputError(
            "This is no fine-tuning job: it has no model or no training_file.",
            hint="Give what fine_tuning.jobs.retrieve returned, or what jobs.create was called with.",
        )
    known = {name: value for name, value in given.items() if name in JobRequest.model_fields}
    if "suffix" not in known:
        known["suffix"] = given.get("user_provided_suffix") or _suffix_in(given.get("fine_tuned_model"))
    others = [name for name in given if name not in {*known, *REPORTED, "user_provided_suffix"}]
    request = job_request({name: value for name, value in known.items() if value is not None})
    return SavedJob(request, [f"{short_name(name)}: not known here, not used." for name in others])


def _suffix_in(name: object) -> str | None:
    """The suffix in a tuned model's name, `ft:gpt-4o-mini:organisation:suffix:id`."""
    found = TUNED_NAME.fullmatch(name) if isinstance(name, str) else None
    return found[1] if found and found[1] else None


def require_supervised(request: JobRequest) -> None:
    """Raises InputError for a job of a method that is not trained."""
    if request.method_name == "dpo":
        raise InputError(
            "method.type: dpo, which trains on preferences, is not possible yet.",
            hint="Ask for the method supervised, with rows of the preferred answers only.",
        )
    if request.method_name != "supervised":
        raise InputError(
            f"method.type: {request.method_name}, which trains with a grader, is not possible.",
            hint="Ask for the method supervised.",
        )
