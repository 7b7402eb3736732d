"""Keywords of version 1's methods: taken under their name here, or refused with the way to do it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar, cast

from ..errors import InputError
from ..logs import logger

P = ParamSpec("P")
R = TypeVar("R")

PUSH = "Export, then call push_to_hub(repo)."
RUN_FOLDER = (
    "A run has a folder of its own, with its checkpoints; output_dir of Trainer is the home of the runs."
)

RENAMED = {"export": {"output_dir": "output"}, "push_to_hub": {"repo_id": "repo"}}
"""Method → keyword → its name here."""

REFUSED = {
    "train": {"extra_callbacks": "Give one function, or Callbacks, as callback."},
    "multi_run": {
        "checkpoint_dir": RUN_FOLDER,
        "on_run_complete": "callback gets every event; the result has each run in its ledger.",
    },
    "export": {"push_to_hub": PUSH, "repo_id": PUSH},
    "save": {"run_id": "The last training is saved. An earlier one is in adapter_path of its run."},
}
"""Method → keyword → what to do instead."""


def with_older_arguments(method: Callable[P, R]) -> Callable[P, R]:
    """The method, which also understands version 1's keywords; others are an error, as in every function."""
    name = method.__name__
    renamed, refused = RENAMED.get(name, {}), REFUSED.get(name, {})

    @wraps(method)
    def call(*args: P.args, **given: P.kwargs) -> R:
        keywords = dict(given)
        for older in refused.keys() & keywords:
            raise InputError(f"{name} has no argument {older}, which version 1 had.", hint=refused[older])
        for older in renamed.keys() & keywords:
            ours = renamed[older]
            if ours in keywords:
                raise InputError(
                    f"{ours} is given twice: {older} is the same argument.", hint="Give it once."
                )
            keywords[ours] = keywords.pop(older)
            logger().warning(f"{older} is called {ours} here.")
        return cast("Callable[..., R]", method)(*args, **keywords)

    return call
