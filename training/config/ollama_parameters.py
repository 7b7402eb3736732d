"""Parameters of an Ollama model. Checked here, since the server ignores unknown names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import OllamaError
from ..nearest_name import nearest
from ..untrusted import quoted

NUMBERS = (
    *("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "num_keep", "num_predict", "seed"),
    *("temperature", "top_k", "top_p", "min_p", "tfs_z", "mirostat", "mirostat_tau", "mirostat_eta"),
    *("repeat_last_n", "repeat_penalty", "presence_penalty", "frequency_penalty"),
)
FLAGS = ("use_mmap", "use_mlock", "penalize_newline", "numa")
STOP = "stop"
KNOWN = (*NUMBERS, *FLAGS, STOP)


def checked_parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that are given (None means not given); `stop` is always a list.

    Raises:
        OllamaError: a name is unknown, or a value has the wrong type.
    """
    for name in given:
        _require_known(name)
    return {name: _checked(name, value) for name, value in given.items() if value is not None}


def _require_known(name: str) -> None:
    if name not in KNOWN:
        close = nearest(name, list(KNOWN))
        raise OllamaError(
            f"parameters: Ollama has no parameter {quoted(name)}.",
            hint=f"Did you mean {close}?" if close else f"Known: {', '.join(KNOWN)}.",
        )


def _checked(name: str, value: Any) -> Any:
    texts = [value] if isinstance(value, str) else value
    if name == STOP and isinstance(texts, list) and all(isinstance(text, str) for text in texts):  # pyright: ignore[reportUnknownVariableType]
        return texts  # pyright: ignore[reportUnknownVariableType]
    wanted = {STOP: "a string or a list of strings"}.get(
        name, "true or false" if name in FLAGS else "a number"
    )
    right = isinstance(value, bool) if name in FLAGS else isinstance(value, int | float)
    if name == STOP or not right or (name in NUMBERS and isinstance(value, bool)):
        raise OllamaError(f"parameters: {name} must be {wanted}, not {quoted(value)}.", hint="Correct it.")
    return value


def with_stops(parameters: Mapping[str, Any], ends: tuple[str, ...]) -> dict[str, Any]:
    """The parameters, with the model's own stop tokens added to `stop`."""
    stops = list(dict.fromkeys([*parameters.get(STOP, []), *ends]))
    return {**parameters, STOP: stops} if stops else dict(parameters)
