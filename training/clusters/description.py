"""The clusters of a home: `clusters.toml`, with a table for each.

    [lab]
    partition = "gpu"
    time = "08:00:00"
    gpus = 1

A table is of a Slurm, or lists `hosts` (hosts.py). It names a program that nodes execute, so it is a file of
the home that no assistant can write.
"""

from __future__ import annotations

import tomllib
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from ..config.arguments import explain
from ..errors import InputError, InvalidSettingError
from ..nearest_name import nearest
from ..untrusted import one_line, quoted, shown_path
from .hosts import Host, Hosts, VariableName

FILE = "clusters.toml"

Word = Annotated[str, StringConstraints(pattern=r"^[!-~]+$", max_length=1000)]
"""The value of an option of sbatch: printable, without spaces."""
Table = TypeVar("Table", bound=BaseModel)


class Cluster(BaseModel):
    """How jobs are submitted to a Slurm; what is not given, the site decides."""

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


def load_clusters(home: Path) -> dict[str, Cluster | Hosts]:
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
    clusters = {name: _checked(path, name, table) for name, table in tables.items()}
    _require_one_order(path, {name: each for name, each in clusters.items() if isinstance(each, Hosts)})
    return clusters


def _require_one_order(path: Path, tables: dict[str, Hosts]) -> None:
    for (name, one), (other_name, other) in combinations(tables.items(), 2):
        if not one.takes_in_order_of(other):
            raise InvalidSettingError(
                f"{shown_path(path)}: [{quoted(name)}] and [{quoted(other_name)}] list the same hosts in "
                "different orders, so that their runs could wait for each other.",
                hint="List hosts in one order everywhere.",
            )


def _checked(path: Path, name: str, table: Any) -> Cluster | Hosts:
    place = f"{shown_path(path)}, [{quoted(name)}]"
    if not isinstance(table, dict):
        raise InvalidSettingError(f"{place}: should be a table.", hint="Begin each cluster with [NAME].")
    given = cast("dict[str, Any]", table)
    if "hosts" not in given:
        return _read(Cluster, given, place, "a cluster")
    if isinstance(given["hosts"], list):
        entries = cast("list[Any]", given["hosts"])
        given = given | {"hosts": [_host(entry, place, n) for n, entry in enumerate(entries, 1)]}
    return _read(Hosts, given, place, "a list of hosts")


def _host(entry: Any, place: str, number: int) -> Host:
    """A host as a table, or as its name alone."""
    table = cast("dict[str, Any]", entry) if isinstance(entry, dict) else {"name": entry}
    return _read(Host, table, f"{place}, host {number}", "a host")


def _read(kind: type[Table], table: dict[str, Any], place: str, what: str) -> Table:
    for key in table:
        if key not in kind.model_fields:
            close = nearest(key, kind.model_fields)
            hint = f"Did you mean {close}?" if close else f"Known are: {', '.join(kind.model_fields)}."
            raise InvalidSettingError(f"{place}: {quoted(key)} is not a setting of {what}.", hint=hint)
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        raise InvalidSettingError(f"{place}: {explain(error)}", hint="Correct the file.") from None


def cluster_named(home: Path, name: str) -> Cluster | Hosts:
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
