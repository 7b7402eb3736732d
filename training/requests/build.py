"""From arguments (a tool's, a command line's, Python's) to a spec."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from ..config.fields import ExportFormat
from ..config.ollama_names import model_name
from ..config.ollama_parameters import checked_parameters
from ..config.quantizations import DEFAULT, default_quantization, known_quantization, require
from ..config.settings import Settings, load_settings
from ..config.specs import (
    GROUPS,
    DataSpec,
    ExportSpec,
    InspectSpec,
    PushSpec,
    RegisterSpec,
    Spec,
    TrainingGroup,
    TrainSpec,
    explain,
    flat_fields,
    flat_name,
)
from ..errors import InputError, nearest
from ..files.output_folder import check_output
from ..files.paths import PathPolicy
from ..models.presets import is_hub_id
from ..redact import looks_secret
from ..runs.store import RunStore
from .gguf_source import gguf_subject
from .model_source import export_subject
from .push_source import push_source

ALIASES: dict[str, tuple[str, dict[Any, Any]]] = {
    "gradient_accumulation": ("gradient_accumulation_steps", {}),
    "train_on_responses": ("train_on", {True: "assistant", False: "all"}),
}
"""Older names that are still accepted: the name today, and what the older values are called."""


def require_alone(names: Iterable[str]) -> None:
    """Refuse what would be ignored: a run goes on as it was made, and only its number of steps can grow.

    Args:
        names: the arguments that were given with `resume`, beside `steps`.

    Raises:
        InputError: there are any.
    """
    given = ", ".join(names)
    if given:
        raise InputError(
            f"A run that goes on keeps its settings and its dataset; resume cannot be given with {given}.",
            hint="Give resume alone, or with steps; or leave resume out to start a new run.",
        )


def train_spec(
    defaults: Settings | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    arguments: Mapping[str, Any],
    roots: Sequence[str] | None = None,
) -> TrainSpec:
    """The spec of a training run.

    Args:
        defaults: where values that are not given come from.
        settings: more settings, by group (`{"lora": {"dropout": 0.1}}`) or by flat name.
        arguments: settings by their flat names (`TrainArguments`); None means not given. They win over
            `settings`.
        roots: see `Spec`.

    Raises:
        InputError: an unknown name (with the nearest known one), a value out of bounds, or a secret.
    """
    groups = _grouped(defaults or load_settings(), settings or {}, arguments)
    return validated(TrainSpec, {**groups, "roots": roots})


def inspect_spec(
    defaults: Settings | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    arguments: Mapping[str, Any],
    preview: int = 3,
    roots: Sequence[str] | None = None,
) -> InspectSpec:
    """The spec of a look at a dataset; arguments as `train_spec` takes them.

    Raises:
        InputError: an unknown name, a value out of bounds, or a secret.
    """
    groups = _grouped(defaults or load_settings(), settings or {}, arguments)
    kept = {name: groups[name] for name in ("model", "data")}
    seed = groups["training"].get("seed", TrainingGroup().seed)
    return validated(InspectSpec, {**kept, "preview": preview, "seed": seed, "roots": roots})


def export_spec(
    source: str,
    store: RunStore,
    paths: PathPolicy,
    *,
    format: ExportFormat = "gguf",
    quantization: str | None = None,
    imatrix: bool = False,
    output: str | None = None,
) -> ExportSpec:
    """The spec of an export.

    Args:
        source: a run's id, the path of an adapter or model folder, or a model's name.
        store: where runs are looked up.
        paths: which folders may be read.
        quantization: of a GGUF; None: what `default_quantization` says.
        output: absolute path that may be written.

    Raises:
        InputError: there is no such source, run or quantization, or the output is in use.
        MissingExtraError: the quantization needs llama-cpp-python.
    """
    subject = export_subject(source, store, paths)
    if format == "gguf":
        quantization = known_quantization(quantization or default_quantization(imatrix))
        require(quantization, imatrix)
    if imatrix and subject.run is None:
        raise InputError(
            "imatrix needs the rows of a training run.", hint="Give a run's id, or leave imatrix out."
        )
    if format != "gguf" or output is None or not Path(output).is_dir():
        check_output(output)
    values = {
        "model": subject.model,
        "adapter": str(subject.adapter) if subject.adapter else None,
        "run": subject.run,
        "format": format,
        "quantization": quantization or DEFAULT,
        "imatrix": imatrix,
        "output": output,
        "roots": paths.recorded(),
    }
    return validated(ExportSpec, values)


def register_spec(
    source: str,
    name: str,
    store: RunStore,
    paths: PathPolicy,
    *,
    system: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    keep_template: bool = False,
    overwrite: bool = False,
    question: str | None = None,
) -> RegisterSpec:
    """The spec of a registration with Ollama.

    Args:
        source: path of a .gguf file, the id of a GGUF export, or of a training that has one.
        store: where runs are looked up.
        paths: which folders may be read.

    Raises:
        InputError: there is no such file or run, or the run has no GGUF.
        OllamaError: the name or a parameter is not one of Ollama's.
    """
    subject = gguf_subject(source, store, paths)
    values = {
        "gguf": str(subject.path),
        "run": subject.run,
        "name": str(model_name(name)),
        "system": system,
        "parameters": checked_parameters(parameters or {}),
        "keep_template": keep_template,
        "overwrite": overwrite,
        "question": question,
        "roots": paths.recorded(),
    }
    return validated(RegisterSpec, values)


def push_spec(
    source: str,
    repo: str,
    store: RunStore,
    paths: PathPolicy,
    *,
    private: bool = True,
    overwrite: bool = False,
) -> PushSpec:
    """The spec of a push to the Hub.

    Args:
        source: a training's or an export's id, or the path of an adapter or of a merged model.
        repo: `owner/name`.
        store: where runs are looked up.
        paths: which folders may be read.

    Raises:
        InputError: there is no such source, or nothing of it can be published; or `repo` is no such name.
    """
    if not is_hub_id(repo):
        raise InputError(f"repo: {repo!r} is not the name of a repository.", hint="Write owner/name.")
    found = push_source(source, store, paths)
    values = {
        "folder": str(found.folder),
        "run": found.run,
        "repo": repo,
        "private": private,
        "overwrite": overwrite,
        "roots": paths.recorded(),
    }
    return validated(PushSpec, values)


def _grouped(defaults: Settings, settings: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Values by group: the defaults that were set, then `settings`, then `arguments`; and `output`."""
    values: dict[str, Any] = {name: getattr(defaults, name).model_dump(exclude_unset=True) for name in GROUPS}
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if name not in GROUPS:
            flat[name] = value
        elif isinstance(value, Mapping):
            _take_group(values[name], name, value)  # pyright: ignore[reportUnknownArgumentType]
        else:
            raise InputError(f"settings.{name} must be an object, not {value!r}.")
    typed = {name: value for name, value in arguments.items() if value is not None}
    twice = sorted(flat.keys() & typed.keys())
    if twice:
        raise InputError(f"{twice[0]} is given twice: as an argument and in settings.", hint="Give it once.")
    given = flat | typed
    fields = flat_fields()
    for name, value in given.items():
        _known(name, [*fields, *ALIASES, *GROUPS, "output"], "argument")
        if name in ALIASES:
            name, renamed = ALIASES[name]
            value = renamed.get(value, value)
        if name == "output":
            values["output"] = value
        else:
            group, field, _ = fields[name]
            values[group][field] = value
    return values


def _take_group(into: dict[str, Any], group: str, values: Mapping[str, Any]) -> None:
    for field, value in values.items():
        _known(field, list(GROUPS[group].model_fields), f"settings.{group}")
        argument = flat_name(group, field)
        if argument in {"model", "dataset"}:
            raise InputError(
                f"settings.{group}.{field} has an argument of its own.", hint=f"Use {argument}=…."
            )
        into[field] = value


SpecType = TypeVar("SpecType", bound=Spec)


def validated(kind: type[SpecType], values: Mapping[str, Any]) -> SpecType:
    """`values` as a spec, with errors that name the flat argument."""
    try:
        spec = kind.model_validate(dict(values))
    except ValidationError as error:
        raise InputError(explain(error), hint="Correct the argument and call again.") from None
    if isinstance(spec, DataSpec) and spec.data.source is None:
        raise InputError("dataset is missing.", hint="Give the path of a file, a folder or a Hub dataset.")
    if looks_secret(spec.model_dump_json()):
        raise InputError(
            "One of the arguments looks like a secret (an access token or a key).",
            hint="Secrets are never written into a run: set HF_TOKEN in the environment instead.",
        )
    return spec


def _known(name: str, known: list[str], place: str) -> None:
    if name in known:
        return
    close = nearest(name, known)
    hint = f"Did you mean {close}?" if close else f"Known: {', '.join(known)}."
    raise InputError(f"Unknown {place} {name!r}.", hint=hint)
