"""In which line a run waits, and for what."""

from __future__ import annotations

from typing import NamedTuple

from ..config.specs import AnySpec
from ..hardware.devices import CPU, training_devices


class Needs(NamedTuple):
    """A line, and the slots of which a run needs one.

    Args:
        lane: `cuda` or `cpu` for work on a device, `short` for what does not wait behind it.
        slots: GPU UUIDs, `cpu`, or the numbered places of the short lane.
    """

    lane: str
    slots: list[str]

    @property
    def device(self) -> bool:
        return self.lane != "short"


SHORT = Needs("short", ["short-1", "short-2"])


def needs_of(spec: AnySpec) -> Needs:
    """What a run has to wait for.

    Raises:
        GpuNotAvailableError: a GPU is wanted and there is none.
    """
    if spec.kind in {"inspect", "register", "push"}:
        return SHORT
    if spec.kind != "train":
        return Needs("cpu", [CPU])
    devices = training_devices(spec.training.device)
    return Needs("cpu" if devices == [CPU] else "cuda", devices)
