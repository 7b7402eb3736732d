"""The experiment trackers that a run can report to, as users name them."""

from __future__ import annotations

from typing import Any, Literal, cast, get_args

TrackerName = Literal["wandb", "tensorboard", "mlflow", "trackio"]

TRACKERS: tuple[TrackerName, ...] = get_args(TrackerName)
WORDS = ("auto", "none")


def tracker_names(given: Any) -> Any:
    """`auto`, `none`, or a list of trackers, from a list, one name, or names with commas between.

    Raises:
        ValueError: a name is unknown.
    """
    names = cast("list[Any]", given) if isinstance(given, list | tuple) else [given]
    found = list(dict.fromkeys(part.strip().lower() for name in names for part in str(name).split(",")))
    if not found or found in ([word] for word in WORDS):
        return found[0] if found else "none"
    if unknown := [name for name in found if name not in TRACKERS]:
        meant = f"{unknown[0]} stands alone" if unknown[0] in WORDS else f"should be {', '.join(WORDS)}"
        raise ValueError(f"{meant}, or one or more of {', '.join(TRACKERS)}")
    return found
