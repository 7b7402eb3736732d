"""How hot the GPUs of a run are, and how hot they may become; read from the driver (NVML)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import BaseModel

from .nvml import monitoring_error, offered

USUAL_SLOWDOWN_C = 88
"""Of a card that does not tell at which temperature it slows itself down."""
ABOVE_SLOWDOWN_C = 6
"""From there to where a card shuts itself down, if it does not tell that either."""
MARGIN_C = 3


@dataclass(frozen=True)
class AskedLimits:
    """The user's limits in °C: None is the card's own, 0 is off.

    Args:
        cool_by_c: degrees below `pause_c` at which a paused run goes on.
    """

    pause_c: int | None
    cool_by_c: int
    critical_c: int | None


class Limits(BaseModel):
    """Temperatures in °C at which a run is paused, goes on, and is stopped; None is off."""

    pause_c: int | None
    resume_c: int | None
    critical_c: int | None


class Heat(NamedTuple):
    """One GPU at one moment."""

    gpu: int
    celsius: int
    limits: Limits

    @property
    def is_hot(self) -> bool:
        return self.limits.pause_c is not None and self.celsius >= self.limits.pause_c

    @property
    def is_critical(self) -> bool:
        return self.limits.critical_c is not None and self.celsius >= self.limits.critical_c

    @property
    def has_cooled(self) -> bool:
        return self.limits.resume_c is None or self.celsius <= self.limits.resume_c


class Thermometer:
    """The sensors of some GPUs.

    Args:
        uuids: the GPUs. NVML counts all cards of the machine, whatever CUDA_VISIBLE_DEVICES leaves of them.

    Raises:
        GpuMonitoringError: the driver does not answer, or a card has no sensor.
    """

    def __init__(self, uuids: Sequence[str], asked: AskedLimits) -> None:
        import pynvml

        self._nvml: Any = pynvml  # untyped
        try:
            self._nvml.nvmlInit()
            self._cards = [card for uuid in uuids for card in self._cards_of(uuid, asked)]
        except self._nvml.NVMLError as error:
            raise monitoring_error("The GPU's temperature cannot be read", error) from error
        self.read()

    def read(self) -> list[Heat]:
        """Each GPU now, the one that is nearest to its limits last. Takes microseconds.

        Raises:
            GpuMonitoringError: a card does not answer.
        """
        found = [self._heat(index, handle, limits) for index, handle, limits in self._cards]
        return sorted(found, key=lambda heat: heat.celsius - (heat.limits.pause_c or 0))

    def _cards_of(self, uuid: str, asked: AskedLimits) -> list[tuple[int, Any, Limits]]:
        nvml = self._nvml
        handles = [(i, nvml.nvmlDeviceGetHandleByIndex(i)) for i in range(nvml.nvmlDeviceGetCount())]
        return [
            (index, handle, limits_of_card(nvml, handle, asked))
            for index, handle in handles
            if nvml.nvmlDeviceGetUUID(handle) == uuid
        ]

    def _heat(self, index: int, handle: Any, limits: Limits) -> Heat:
        try:
            celsius = self._nvml.nvmlDeviceGetTemperature(handle, self._nvml.NVML_TEMPERATURE_GPU)
        except self._nvml.NVMLError as error:
            raise monitoring_error(f"The temperature of GPU {index} cannot be read", error) from error
        return Heat(index, celsius, limits)


def limits_of_card(nvml: Any, handle: Any, asked: AskedLimits) -> Limits:
    """The limits as asked for, else by the temperatures at which this card protects itself."""
    slowdown, shutdown = (
        offered(nvml, nvml.nvmlDeviceGetTemperatureThreshold, handle, kind)
        for kind in (nvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN, nvml.NVML_TEMPERATURE_THRESHOLD_SHUTDOWN)
    )
    return limits_of(slowdown, shutdown, asked)


def limits_of(slowdown_c: int | None, shutdown_c: int | None, asked: AskedLimits) -> Limits:
    """Pause shortly before the card slows down; stop halfway from there to where it shuts down."""
    slowdown = slowdown_c or USUAL_SLOWDOWN_C
    shutdown = shutdown_c or slowdown + ABOVE_SLOWDOWN_C
    pause, critical = asked.pause_c, asked.critical_c
    if pause is None:
        pause = min(slowdown - MARGIN_C, critical - MARGIN_C if critical else slowdown)
    if critical is None:
        critical = max((slowdown + shutdown) // 2, pause + MARGIN_C)
    return Limits(
        pause_c=pause or None,
        resume_c=pause - asked.cool_by_c if pause else None,
        critical_c=critical or None,
    )
