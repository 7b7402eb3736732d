"""The settings of the process: environment variables, the home folder's `.env`, and the defaults."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from ..errors import InvalidSettingError, nearest
from ..files.private_folder import take_home
from ..next_step import then
from ..untrusted import quoted, shown_path
from .arguments import explain
from .specs import DataGroup, EvaluationGroup, Group, LoraGroup, ModelGroup, TrainingGroup

ENV_PREFIX = "BACKPROPAGATE_"


class UnslothSettings(Group):
    python: Annotated[
        str | None,
        Field(description="Python interpreter of an environment with Unsloth, for engine=unsloth."),
    ] = None


class GpuSettings(Group):
    pause_c: Annotated[
        int | None,
        Field(
            ge=0,
            le=150,
            description="Pause a run at this GPU temperature, in °C; 0 is off. Default: 3 below where the "
            "card slows itself down (85 if it does not tell).",
        ),
    ] = None
    cool_by_c: Annotated[
        int, Field(ge=1, le=60, description="A paused run goes on when the GPU has cooled by so many °C.")
    ] = 8
    critical_c: Annotated[
        int | None,
        Field(
            ge=0,
            le=150,
            description="Stop a run, with a checkpoint, at this GPU temperature, in °C; 0 is off. "
            "Default: halfway from where the card slows down to where it shuts down.",
        ),
    ] = None

    @field_validator("critical_c")
    @classmethod
    def _require_above_pause(cls, critical_c: int | None, info: ValidationInfo) -> int | None:
        pause_c = info.data.get("pause_c")
        if pause_c and critical_c and critical_c <= pause_c:
            raise ValueError(f"should be above pause_c={pause_c}")
        return critical_c


class Settings(BaseSettings):
    """Defaults of every run, and settings of this process; from the environment and the home's `.env`."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, env_ignore_empty=True
    )

    home: Annotated[Path, Field(description="Home folder: runs, models and cache.")] = Path(
        "~/.backpropagate"
    )
    runtime_dir: Annotated[Path | None, Field(description="Folder of the device queue and its locks.")] = None
    python: Annotated[str | None, Field(description="Python interpreter of the workers.")] = None
    keep_model_s: Annotated[
        float,
        Field(ge=0, le=86_400, description="Seconds that a model that has answered stays loaded; 0 is off."),
    ] = 120.0
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], Field(description="Lowest level that is logged.")
    ] = "INFO"
    log_json: Annotated[bool, Field(description="Log JSON lines instead of text.")] = False
    log_file: Annotated[Path | None, Field(description="Log to this file as well as to stderr.")] = None
    model: ModelGroup = ModelGroup()
    data: DataGroup = DataGroup()
    lora: LoraGroup = LoraGroup()
    training: TrainingGroup = TrainingGroup()
    evaluation: EvaluationGroup = EvaluationGroup()
    unsloth: UnslothSettings = UnslothSettings()
    gpu: GpuSettings = GpuSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, dotenv_settings


NOT_IN_DOTENV = ("HOME", "RUNTIME_DIR", "PYTHON", "UNSLOTH__PYTHON", "ROOTS")
"""Names that `.env` may not set: they decide which program is executed and where files are written."""


def home_folder() -> Path:
    """`BACKPROPAGATE_HOME`, or `~/.backpropagate`."""
    return Path(os.environ.get(f"{ENV_PREFIX}HOME") or "~/.backpropagate").expanduser().absolute()


def load_settings() -> Settings:
    """The settings of this process: environment first, then `.env` in the home folder, then the defaults.

    Raises:
        InvalidSettingError: a name is unknown, a value is out of bounds, or `.env` sets a name of
            `NOT_IN_DOTENV`.
        ForeignOwnerError: the home, or something in it, belongs to another user.
    """
    home = home_folder()
    _require_folder(home, "HOME")
    if home.is_dir():
        take_home(home)
    dotenv = home / ".env"
    _check_dotenv(dotenv)
    _check_names(os.environ, "the environment")
    try:
        # The file's name is an argument of BaseSettings, which pydantic's types do not show.
        settings = Settings(_env_file=dotenv)  # pyright: ignore[reportCallIssue]
    except ValidationError as error:
        raise InvalidSettingError(
            explain(error, prefix=ENV_PREFIX, separator="__"), next=then("show_settings")
        ) from None
    if settings.runtime_dir:
        _require_folder(settings.runtime_dir.expanduser().absolute(), "RUNTIME_DIR")
    absolute = {name: _absolute(getattr(settings, name)) for name in ("runtime_dir", "log_file")}
    return settings.model_copy(update={"home": home, **absolute})


def _require_folder(folder: Path, name: str) -> None:
    """Raises InvalidSettingError unless it is a folder, or can be made in its nearest existing parent."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    usable = there == folder or os.access(there, os.W_OK)  # a home that is read-only can be listed
    if not there.is_dir() or not usable or there == Path("/proc"):
        raise InvalidSettingError(
            f"{ENV_PREFIX}{name}: {shown_path(folder)} cannot be used "
            f"({shown_path(there)} is not a writable folder).",
            hint="Use a folder that you own, on a local disk.",
        )


def _absolute(path: Path | None) -> Path | None:
    """An absolute path, since workers have another working folder."""
    return None if path is None else path.expanduser().absolute()


def _check_dotenv(dotenv: Path) -> None:
    if not dotenv.is_file():
        return
    from dotenv import dotenv_values

    place = shown_path(dotenv)
    try:
        values = dotenv_values(dotenv)
    except UnicodeDecodeError as error:
        raise InvalidSettingError(
            f"{shown_path(dotenv)} is not UTF-8.", hint="Save it as UTF-8.", cause=error
        ) from error
    for name, value in values.items():
        if value is None:
            raise InvalidSettingError(
                f"{place}: {quoted(name)} has no value.", hint="Write NAME=VALUE on each line."
            )
    names = {name: value or "" for name, value in values.items()}
    for name in names:
        if name.upper().removeprefix(ENV_PREFIX) in NOT_IN_DOTENV:
            raise InvalidSettingError(
                f"{place} sets {quoted(name)}, which only an environment variable may set.",
                hint="Remove the line and set it in the environment of the server or the command.",
            )
        if not name.upper().startswith(ENV_PREFIX):
            raise InvalidSettingError(
                f"{place} sets {quoted(name)}, which is not a setting of backpropagate.",
                hint=f"Names in it begin with {ENV_PREFIX}; set other variables in the environment.",
            )
    _check_names(names, place)


def _check_names(variables: Mapping[str, str], place: str) -> None:
    known = environment_names()
    for name in variables:
        upper = name.upper()
        if upper.startswith(ENV_PREFIX) and upper not in known:
            close = nearest(upper.removeprefix(ENV_PREFIX), [each.removeprefix(ENV_PREFIX) for each in known])
            raise InvalidSettingError(
                f"{quoted(name)} in {place} is not a setting.",
                hint=f"Did you mean {ENV_PREFIX}{close}?" if close else None,
                next=None if close else then("show_settings"),
            )


def values_of(settings: Settings) -> dict[str, Any]:
    """The value of each setting by the name of its environment variable: None, a number, or text."""
    dumped = settings.model_dump(mode="json")
    values: dict[str, Any] = {}
    for field, value in dumped.items():
        inner = value.items() if isinstance(getattr(settings, field), Group) else [("", value)]
        for name, setting in inner:
            values[f"{ENV_PREFIX}{field.upper()}{'__' if name else ''}{name.upper()}"] = setting
    return values


def environment_names() -> dict[str, FieldInfo]:
    """Every environment variable that is read, with its definition."""
    names: dict[str, FieldInfo] = {}
    for field, info in Settings.model_fields.items():
        if not isinstance(info.default, Group):
            names[f"{ENV_PREFIX}{field.upper()}"] = info
            continue
        for inner, inner_info in type(info.default).model_fields.items():
            names[f"{ENV_PREFIX}{field.upper()}__{inner.upper()}"] = inner_info
    return names
