"""How NVML's calls are made: what a card does not offer is None, anything else that fails is our error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import GpuMonitoringError
from ..untrusted import short_name


def offered(nvml: Any, read: Callable[..., Any], *arguments: Any) -> Any:
    """A reading, or None where this card, this driver or this user does not get it."""
    try:
        return read(*arguments)
    except nvml.NVMLError as error:
        if error.value in (
            nvml.NVML_ERROR_NOT_SUPPORTED,
            nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
            nvml.NVML_ERROR_NO_PERMISSION,
        ):
            return None
        raise


def monitoring_error(what: str, error: Exception) -> GpuMonitoringError:
    return GpuMonitoringError(
        f"{what}: {short_name(error)}.",
        hint="Run nvidia-smi: if it fails too, the driver has to be reloaded or the machine restarted.",
        cause=error,
        untrusted=str(error),
    )
