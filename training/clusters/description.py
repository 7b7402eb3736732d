"""The clusters of a home: `clusters.toml`, with a table for each.

    [lab]
    partition = "gpu"
    time = "08:00:00"
    gpus = 1

It names a program that nodes execute, so it is a file of the home that no assistant can write.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from ..config.arguments import explain
from ..errors import InputError, InvalidSettingError, nearest
from ..untrusted import one_line, quoted, shown_path

FILE = "clusters.toml"

Word = Annotated[str, StringConstraints(pattern=r"^[!-~]+$", max_length=1000)]
"""The value of an option of sbatch: printable, without spaces."""
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class Cluster(BaseModel):
    """How jobs are submitted to a cluster; what is not given, the site's Slurm decides."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    partition: Annotated[Word | None, Field(description="Partition, or several with commas.")] = None
    account: Annotated[Word | None, Field(description="Account that is charged.")] = None
    qos: Annotated[Word | None, Field(description="Quality of service.")] = None
    time: Annotated[Word | None, Field(description="Time limit, e.g. 08:00:00 or 2-00:00:00.")] = None
    nodes: Annotated[int | None, Field(ge=1, le=64, description="Nodes that share each step.")] = None
    gpus: Annotated[int | None, Field(ge=1, le=64, description="GPUs of a node, for gpus=all.")] = None
    gpu_type: Annotated[Word | None, Field(description="Type of these GPUs, e.g. a100.")] = None
    cpus: Annotated[int | None, Field(ge=1, description="CPU cores.")] = None
    memory: Annotated[Word | None, Field(description="Memory of the node, e.g. 64G.")] = None
    constraint: Annotated[Word | None, Field(description="Features that the node must have.")] = None
    reservation: Annotated[Word | None, Field(description="Reservation to use.")] = None
    nodelist: Annotated[Word | None, Field(description="Nodes to use.")] = None
    exclude: Annotated[Word | None, Field(description="Nodes not to use.")] = None
    mail_type: Annotated[Word | None, Field(description="Of which events Slurm sends mail.")] = None
    mail_user: Annotated[Word | None, Field(description="Whom it sends mail.")] = None
    python: Annotated[
        str | None,
        Field(min_length=1, description="Python on the nodes. Default: the one that runs workers here."),
    ] = None
    environment: Annotated[
        list[VariableName], Field(description="More variables that the job inherits, by name.")
    ] = []


def load_clusters(home: Path) -> dict[str, Cluster]:
    """The clusters of a home by name; none without the file.

    Raises:
        InvalidSettingError: the file cannot be read, or says what is not known.
    """
    path = home / FILE
    if not path.is_file():
        return {}
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:  # also of TOML and of UTF-8
        raise InvalidSettingError(
            f"{shown_path(path)} cannot be read: {one_line(str(error), 200)}.", hint="Correct the file."
        ) from error
    return {name: _checked(path, name, table) for name, table in tables.items()}


def _checked(path: Path, name: str, table: Any) -> Cluster:
    place = f"{shown_path(path)}, [{quoted(name)}]"
    if not isinstance(table, dict):
        raise InvalidSettingError(f"{place}: should be a table.", hint="Begin each cluster with [NAME].")
    for key in map(str, table):  # pyright: ignore[reportUnknownArgumentType]
        if key not in Cluster.model_fields:
            close = nearest(key, Cluster.model_fields)
            hint = f"Did you mean {close}?" if close else f"Known are: {', '.join(Cluster.model_fields)}."
            raise InvalidSettingError(f"{place}: {quoted(key)} is not a setting of a cluster.", hint=hint)
    try:
        return Cluster.model_validate(table)
    except ValidationError as error:
        raise InvalidSettingError(f"{place}: {explain(error)}", hint="Correct the file.") from None


def cluster_named(home: Path, name: str) -> Cluster:
    """The cluster of this name.

    Raises:
        InputError: there is none.
        InvalidSettingError: as `load_clusters`.
    """
    clusters = load_clusters(home)
    if name in clusters:
        return clusters[name]
    file = shown_path(home / FILE)
    if not clusters:
        raise InputError(
            f"on: there is no cluster {quoted(name)}.", hint=f"Describe it in {file}, in a table [NAME]."
        )
    close = nearest(name, clusters)
    raise InputError(
        f"on: there is no cluster {quoted(name)}.",
        hint=f"Did you mean {close}?" if close else f"{file} has {', '.join(map(quoted, clusters))}.",
    )
