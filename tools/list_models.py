"""list_models: the models that can be trained here: presets, downloaded ones, and what fits."""

from __future__ import annotations

import anyio.to_thread
from pydantic import BaseModel

from ..training.config.training_plan import Fit
from ..training.models.cached import CachedModel, cached_models
from ..training.models.presets import BF16_BYTES, PRESETS
from ..training.requests.default_model import model_or_default
from .context import ToolContext, ToolResult, as_lines


class ModelLine(BaseModel):
    """One model.

    Args:
        model: its name for other tools: a preset, or a Hub id.
        billions: of parameters; of a model that is no preset, by the size of its files.
        downloaded_gb: of weights on this machine; None if they would be downloaded.
        trains_here: by the memory that its smallest settings need.
    """

    model: str
    hub_id: str | None = None
    billions: float
    downloaded_gb: float | None = None
    trains_here: Fit


class ModelList(ToolResult):
    """Models, those that need no download first."""

    machine: str
    default: str
    models: list[ModelLine]
    next: str

    def text(self) -> str:
        lines = [_line(model) for model in self.models]
        return as_lines([f"{self.machine} Default: {self.default}.", *lines, f"Next: {self.next}"])


async def list_models(context: ToolContext) -> ModelList:
    """List models to fine-tune: presets, those already downloaded, and whether they fit this machine.

    Any other causal language model of the Hub, or the folder of one, can be trained too.
    """
    return await anyio.to_thread.run_sync(_listed, context)


def _listed(context: ToolContext) -> ModelList:
    from ..training.planning.fits_here import FitsHere  # here: a server starts sooner

    machine = FitsHere()
    here = {model.hub_id: model for model in cached_models(context.service.settings.home / "models")}
    presets = {preset.hub_id: name for name, preset in PRESETS.items()}
    lines = [_of_preset(name, here.get(PRESETS[name].hub_id), machine.preset(name)) for name in PRESETS]
    lines += [
        _of_cached(model, machine.cached(model)) for model in here.values() if model.hub_id not in presets
    ]
    wanted = context.service.settings.model.name
    default = model_or_default(wanted)
    return ModelList(
        machine=machine.sentence(),
        default=presets.get(default, default),
        models=sorted(lines, key=lambda line: (line.downloaded_gb is None, line.billions)),
        next="train(dataset=…, model=…) trains one; without a model, the default.",
    )


def _of_preset(name: str, cached: CachedModel | None, fit: Fit) -> ModelLine:
    preset = PRESETS[name]
    return ModelLine(
        model=name,
        hub_id=preset.hub_id,
        billions=preset.billions,
        downloaded_gb=cached.weights / 1e9 if cached else None,
        trains_here=fit,
    )


def _of_cached(cached: CachedModel, fit: Fit) -> ModelLine:
    billions = cached.weights / BF16_BYTES
    return ModelLine(
        model=cached.hub_id,
        billions=billions,
        downloaded_gb=cached.weights / 1e9,
        trains_here=fit,
    )


def _line(model: ModelLine) -> str:
    size = f"downloaded, {model.downloaded_gb:.3g} GB" if model.downloaded_gb else "not downloaded"
    return f"{model.model}: {model.billions:.3g} billion, {size}; trains here: {model.trains_here}"
