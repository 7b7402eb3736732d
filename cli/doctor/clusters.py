"""Would the clusters of the home take a job?"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from ...training.clusters.description import Cluster, load_clusters
from ...training.clusters.host_check import HostFacts, facts_of, require_usable
from ...training.clusters.hosts import Host, Hosts
from ...training.clusters.job_script import options_of, script_of
from ...training.clusters.slurm import cluster_name, test
from ...training.config.settings import home_folder, load_settings
from ...training.errors import BackpropagateError
from ...training.untrusted import one_line, quoted, shown_path
from .finding import Finding


def cluster_findings() -> Iterator[Finding]:
    """Nothing where none is described."""
    try:
        clusters = load_clusters(home_folder())
    except BackpropagateError as error:
        yield Finding("clusters", "problem", error.message, error.hint)
        return
    for name, cluster in clusters.items():
        if isinstance(cluster, Hosts):
            yield from _of_hosts(name, cluster)
        else:
            yield _of(name, cluster)


def _of_hosts(name: str, hosts: Hosts) -> Iterator[Finding]:
    home = home_folder()
    try:
        told = facts_of(home, name, hosts, load_settings().python or sys.executable)
    except BackpropagateError as error:
        yield _problem(name, error)
        return
    for host, facts in zip(hosts.hosts, told, strict=True):
        yield _of_host(name, host, facts, home)


def _of_host(name: str, host: Host, facts: HostFacts, home: Path) -> Finding:
    try:
        require_usable(facts, home)
    except BackpropagateError as error:
        return _problem(name, error)
    has = f"{quoted(name)}: host {quoted(host.name)} answers, with {facts.gpus} GPUs."
    if facts.gpus < host.gpus:
        few = "Correct its `gpus` in clusters.toml, or look at nvidia-smi there."
        return Finding("clusters", "note", f"{has} `gpus` is {host.gpus}.", few)
    return Finding("clusters", "ok", has)


def _problem(name: str, error: BackpropagateError) -> Finding:
    said = f" {one_line(error.untrusted, 300)}" if error.untrusted else ""
    return Finding("clusters", "problem", f"{quoted(name)}: {error.message}{said}", error.hint)


def _of(name: str, cluster: Cluster) -> Finding:
    try:
        slurm = cluster_name()
        told = test(options_of(cluster), script_of(["true"]))
    except BackpropagateError as error:
        return _problem(name, error)
    python = cluster.python
    if python and Path(python).is_absolute() and not Path(python).exists():
        missing = f"{quoted(name)}: its python, {shown_path(python)}, is not here; is it on the nodes?"
        return Finding("clusters", "note", missing, "Use a folder that this machine and the nodes share.")
    takes = f"{quoted(name)}: Slurm {quoted(slurm)} would take a job."
    return Finding("clusters", "ok", f"{takes} {one_line(told, 200)}")
