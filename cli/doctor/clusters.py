"""Would the clusters of the home take a job?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...training.clusters.description import Cluster, load_clusters
from ...training.clusters.job_script import options_of, script_of
from ...training.clusters.slurm import cluster_name, test
from ...training.config.settings import home_folder
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
        yield _of(name, cluster)


def _of(name: str, cluster: Cluster) -> Finding:
    try:
        slurm = cluster_name()
        told = test(options_of(cluster), script_of(["true"]))
    except BackpropagateError as error:
        said = f" {one_line(error.untrusted, 300)}" if error.untrusted else ""
        return Finding("clusters", "problem", f"{quoted(name)}: {error.message}{said}", error.hint)
    python = cluster.python
    if python and Path(python).is_absolute() and not Path(python).exists():
        missing = f"{quoted(name)}: its python, {shown_path(python)}, is not here; is it on the nodes?"
        return Finding("clusters", "note", missing, "Use a folder that this machine and the nodes share.")
    takes = f"{quoted(name)}: Slurm {quoted(slurm)} would take a job."
    return Finding("clusters", "ok", f"{takes} {one_line(told, 200)}")
