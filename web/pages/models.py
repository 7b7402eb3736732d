"""The models that can be trained here, and this machine."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from ...tools.gpu_status import gpu_status
from ...tools.list_models import list_models
from ..desk import desk_of
from ..look import clean, page


async def show(request: Request) -> Response:
    """Presets and downloaded models, those that need no download first."""
    context = desk_of(request).context()
    found = await list_models(context)
    hardware = await gpu_status(context)
    return page(
        request,
        "models.html",
        machine=clean(found.machine),
        default=found.default,
        models=clean([model.model_dump(mode="json") for model in found.models]),
        hardware=clean(hardware.text()).splitlines(),
    )
