"""The spec of a push to the Hub from its arguments."""

from __future__ import annotations

from ..config.specs import PushSpec
from ..errors import InputError
from ..files.paths import PathPolicy
from ..models.presets import is_hub_id
from ..runs.store import RunStore
from ..untrusted import quoted
from .sources import push_source
from .validated import validated


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
        store: the runs.
        paths: the folders that may be read.

    Raises:
        InputError: the source does not exist or cannot be published, or `repo` is not a repository name.
    """
    if not is_hub_id(repo):
        raise InputError(f"repo: {quoted(repo)} is not a repository name.", hint="Write owner/name.")
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
