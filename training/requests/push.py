"""The request to push to the Hub."""

from __future__ import annotations

from ..config.specs import PushSpec
from ..errors import InputError
from ..files.paths import PathPolicy
from ..models.presets import is_hub_id
from ..runs.store import RunStore
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
