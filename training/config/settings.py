"""The settings of the process: environment variables, the home folder's `.env`, and the defaults."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from ..errors import InvalidSettingError
from ..files.private_folder import take_home
from ..untrusted import shown_path
from .arguments import explain
from .dotenv_file import read_dotenv
from .environment import ENV_PREFIX, notes_on_names, own_names
from .specs import DataGroup, EvaluationGroup, Group, LoraGroup, ModelGroup, TrainingGroup


class UnslothSettings(Group):
    python: Annotated[
        str | None,
        Field(description="Python interpreter of an environment with Unsloth, for engine=unsloth."),
    ] = None


class NotifySettings(Group):
    """A notice at the end of a run. No tool sets it: it leaves the machine."""

    desktop: Annotated[bool, Field(description="Show a notice on the desktop when a run has ended.")] = False
    webhook: Annotated[
        SecretStr | None,
        Field(description="Post a notice to this http(s) address when a run has ended."),
    ] = None
    after_s: Annotated[float, Field(ge=0, description="Only of runs that took at least so many seconds.")] = (
        60.0
    )

    @field_validator("webhook")
    @classmethod
    def _require_http(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not url.get_secret_value().startswith(("https://", "http://")):
            raise ValueError("should begin with https:// or http://")
        return url


class LimitSettings(Group):
    """Beyond these an assistant has to ask the user before it starts a run."""

    hours: Annotated[float | None, Field(gt=0, description="Ask before a run that may take longer.")] = None
    disk_gb: Annotated[
        float | None, Field(gt=0, description="Ask before a run that may write or download more.")
    ] = None
    gpu_memory_gib: Annotated[
        float | None, Field(gt=0, description="Ask before a run that may use more memory of a GPU.")
    ] = None

    @property
    def are_set(self) -> bool:
        return self != LimitSettings()


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


class PrincipalSettings(Group):
    calls: Annotated[
        int, Field(ge=1, description="Open requests over HTTP of each principal (or of the one token).")
    ] = 128
    runs: Annotated[
        int, Field(ge=1, description="Queued and running runs of each principal of an OAuth server.")
    ] = 8
    disk_gib: Annotated[
        float,
        Field(gt=0, description="GiB that the runs of each principal may take, and that its files may."),
    ] = 100.0
    free_gib: Annotated[
        float, Field(ge=0, description="GiB that must be free for a run of a principal to be queued.")
    ] = 2.0


class UiSettings(Group):
    output_dir: Annotated[
        Path | None,
        Field(
            description="Folder that the web page writes to and keeps uploads in. Default: ui-outputs in the "
            "home folder."
        ),
    ] = None
    upload_mib: Annotated[
        int, Field(ge=1, le=4096, description="Largest file that the web page takes, in MiB.")
    ] = 50


class SecuritySettings(Group):
    require_auth_for_share: Annotated[
        bool, Field(description="Share the web page only with a password; off warns, and waits 5 seconds.")
    ] = True


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


class Settings(BaseSettings):
    """Defaults of every run, and settings of this process; from the environment and the home's `.env`.

    Attributes:
        notes: sentences on names of earlier versions, and on variables that are ignored.
    """

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
    spare_worker_s: Annotated[
        float,
        Field(
            ge=0,
            le=86_400,
            description="Seconds that a server's spare worker, with torch imported, waits for a training; "
            "0 is off.",
        ),
    ] = 600.0
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"],
        BeforeValidator(_upper),
        Field(description="Lowest level that is logged."),
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
    notify: NotifySettings = NotifySettings()
    limits: LimitSettings = LimitSettings()
    principal: PrincipalSettings = PrincipalSettings()
    ui: UiSettings = UiSettings()
    security: SecuritySettings = SecuritySettings()

    _notes: tuple[str, ...] = PrivateAttr(())

    @property
    def notes(self) -> tuple[str, ...]:
        return self._notes

    def with_notes(self, notes: list[str]) -> Settings:
        self._notes = tuple(notes)
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        for source in (env_settings, dotenv_settings):
            assert isinstance(source, EnvSettingsSource)
            source.env_vars = own_names(source.env_vars, environment_names())
        return init_settings, env_settings, dotenv_settings


class DotenvSettings(Settings):
    """The settings of a `.env` alone, whose wrong values the environment cannot hide."""

    @classmethod
    def settings_customise_sources(
        cls, *sources: Any, **named: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return super().settings_customise_sources(*sources, **named)[-1:]


SECRETS = (f"{ENV_PREFIX}NOTIFY__WEBHOOK",)


def home_folder() -> Path:
    """`BACKPROPAGATE_HOME`, or `~/.backpropagate`."""
    return Path(os.environ.get(f"{ENV_PREFIX}HOME") or "~/.backpropagate").expanduser().absolute()


def load_settings() -> Settings:
    """The settings of this process: environment first, then `.env` in the home folder, then the defaults.

    Raises:
        InvalidSettingError: a name is probably a typing error, a value is out of bounds, or `.env` sets a
            name of `NOT_IN_DOTENV`.
        ForeignOwnerError: the home, or something in it, belongs to another user.
    """
    home = home_folder()
    _require_folder(home, "HOME")
    if home.is_dir():
        take_home(home)
    settings = checked(home / ".env")
    if settings.runtime_dir:
        _require_folder(settings.runtime_dir.expanduser().absolute(), "RUNTIME_DIR")
    absolute = {name: _absolute(getattr(settings, name)) for name in ("runtime_dir", "log_file")}
    return settings.model_copy(update={"home": home, **absolute})


def checked(dotenv: Path, kind: type[Settings] | None = None, place: str | None = None) -> Settings:
    """The settings with this file as `.env`, paths as they are given.

    Args:
        kind: `DotenvSettings` for those of the file alone.
        place: what errors call the file.

    Raises:
        InvalidSettingError: as `load_settings`.
    """
    notes = notes_of(dotenv, place)
    try:
        # The file's name is an argument of BaseSettings, which pydantic's types do not show.
        settings = (kind or Settings)(_env_file=dotenv)  # pyright: ignore[reportCallIssue]
    except ValidationError as error:
        told = explain(error, prefix=ENV_PREFIX, separator="__", secret=SECRETS)
        hint = f"Correct or remove it in {_where(error, shown_path(dotenv))}."
        if place is not None:  # of a candidate for the file
            hint = "Nothing was changed: give another value, or reset the one that is wrong."
        raise InvalidSettingError(told, hint=hint) from None
    return settings.with_notes(notes)


def _where(error: ValidationError, file: str) -> str:
    """Where the first wrong setting comes from: the environment goes before the file."""
    name = ENV_PREFIX + "__".join(str(part) for part in error.errors()[0]["loc"][:2]).upper()
    return "the environment" if any(given.upper() == name for given in os.environ) else file


def notes_of(dotenv: Path, place: str | None = None) -> list[str]:
    """What is to be said about the names in the environment and in `.env`.

    Raises:
        InvalidSettingError: a name is probably a typing error, or `.env` may not set it or cannot be read.
    """
    known, place = environment_names(), place or shown_path(dotenv)
    inside = notes_on_names(read_dotenv(dotenv, place), place, known)
    return [*inside, *notes_on_names(os.environ, "the environment", known)]


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
