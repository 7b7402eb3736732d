"""Which of the known models fit this machine."""

from __future__ import annotations

from ..config.training_plan import Fit
from ..errors import ModelLoadError
from ..models.cached import CachedModel
from ..models.presets import BF16_BYTES
from .decoder_shape import folder_shape
from .fits import fit_of, sizes_that_fit
from .known_shapes import usual_shape
from .machine import machine_or_cpu
from .memory import GIB
from .model_facts import preset_shape


class FitsHere:
    """This machine, read once: its smallest GPU, or the CPU."""

    def __init__(self) -> None:
        self._machine = machine_or_cpu()

    def sentence(self) -> str:
        """What there is, and which sizes fit it."""
        machine, fit = self._machine, "; ".join(sizes_that_fit(self._machine))
        if machine.on_gpu:
            return f"The smallest GPU has {machine.total_gpu_bytes / GIB:.0f} GiB ({fit})."
        return f"No GPU. The CPU has {machine.total_bytes / GIB:.0f} GiB of main memory ({fit})."

    def preset(self, name: str) -> Fit:
        return fit_of(preset_shape(name), self._machine)

    def cached(self, model: CachedModel) -> Fit:
        """Of a downloaded model; one whose config tells no sizes counts by those of its files."""
        try:
            shape = folder_shape(model.folder)
        except (ModelLoadError, OSError, ValueError):
            shape = usual_shape(max(model.weights / BF16_BYTES, 1e-6))
        return fit_of(shape, self._machine)
