"""llama.cpp's own quantiser, from llama-cpp-python: which type a tensor gets, and its bytes.

Nothing is logged to stdout or stderr: llama.cpp's log messages are collected, because only they say which
type it would choose.
"""

from __future__ import annotations

import ctypes
import re
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, quant_shape_to_byte_shape
from numpy.typing import NDArray

from ...config.quantizations import EXTRA
from ...errors import GgufExportError, MissingExtraError
from ..merged.merge import Floats
from .tensor_plan import PlannedTensor
from .writer import quantize_with_numpy

NEEDED = ("dry_run", "imatrix", "ftype")
TYPE_LINE = re.compile(r"\]\s+(\S+)\s+- \[.*?\], type =\s+(\S+),\s+size =[^(\n]*(?:\((\S+)\))?")
TAIL = 300
MOST_MESSAGES = 100_000
_KEPT: list[Any] = []

llama_cpp: Any = import_module("llama_cpp")  # of an extra: its types are not there to be checked


class LlamaCpp:
    """The loaded libraries.

    Raises:
        MissingExtraError: their version lacks a field that is needed.
    """

    def __init__(self) -> None:
        fields = {name for name, *_ in llama_cpp.llama_model_quantize_params._fields_}
        missing = [name for name in NEEDED if name not in fields]
        if missing:
            raise MissingExtraError(
                f"llama-cpp-python {llama_cpp.__version__} has no {missing[0]}.", hint=f"Update it: {EXTRA}."
            )
        loader: Any = import_module("llama_cpp._ctypes_extensions")
        self._ggml = loader.load_shared_library("ggml-base", Path(llama_cpp.__file__).parent / "lib")
        self._ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
        self._ggml.ggml_quantize_chunk.argtypes = [
            *(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p),
            *(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p),
        ]

    def tensor_types(self, header: Path, quantization: str) -> dict[str, GGMLQuantizationType]:
        """The type that llama.cpp gives each tensor.

        Args:
            header: a GGUF whose tensors are f16 and f32; their data is not looked at.

        Raises:
            GgufExportError: llama.cpp rejects the file.
        """
        parameters = llama_cpp.llama_model_quantize_default_params()
        parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{quantization.upper()}")
        parameters.dry_run = True
        messages = _log_messages()
        messages.clear()
        target = header.with_suffix(".none")
        failed = llama_cpp.llama_model_quantize(
            str(header).encode(), str(target).encode(), ctypes.byref(parameters)
        )
        said = "".join(messages)
        if failed:
            raise GgufExportError("llama.cpp rejects the model.", untrusted=said[-TAIL:].strip())
        return {name: _type(new or old) for name, old, new in TYPE_LINE.findall(said)}

    def quantize_rows(self, values: Floats, tensor: PlannedTensor, imatrix: Mapping[str, Floats]) -> bytes:
        """Rows of a tensor, (rows, columns), as its type's bytes; rounded to f16 first, as llama.cpp reads
        them from its own files.

        Args:
            imatrix: by the names of the model's weights, how much each column's error counts, (columns,).
        """
        if tensor.kind in (GGMLQuantizationType.F32, GGMLQuantizationType.F16):
            return quantize_with_numpy(values, tensor)
        rounded = values.astype(np.float16).astype(np.float32)
        return self._quantize(rounded, tensor.kind, imatrix.get(tensor.source or "")).tobytes()

    def _quantize(
        self, values: Floats, kind: GGMLQuantizationType, imatrix: Floats | None
    ) -> NDArray[np.uint8]:
        """Releases the GIL."""
        values = np.ascontiguousarray(values)
        rows, columns = values.shape
        stored = np.empty(quant_shape_to_byte_shape((rows, columns), kind), np.uint8)
        self._ggml.ggml_quantize_init(int(kind))
        weights = None if imatrix is None else imatrix.ctypes.data
        written = self._ggml.ggml_quantize_chunk(
            int(kind), values.ctypes.data, stored.ctypes.data, 0, rows, columns, weights
        )
        if written != stored.nbytes:
            raise GgufExportError(f"llama.cpp wrote {written} bytes of {kind.name}, not {stored.nbytes}.")
        return stored


@cache
def _log_messages() -> deque[str]:
    """llama.cpp's log messages from now on. The library keeps the callback's address: it is never freed."""
    messages: deque[str] = deque(maxlen=MOST_MESSAGES)

    @llama_cpp.llama_log_callback
    def hear(level: int, text: bytes, user_data: Any) -> None:
        messages.append(text.decode("utf-8", "replace"))

    llama_cpp.llama_log_set(hear, ctypes.c_void_p(0))
    _KEPT.append(hear)
    return messages


def _type(name: str) -> GGMLQuantizationType:
    """The type that llama.cpp calls `q4_K`, `f16`, …"""
    members: Sequence[GGMLQuantizationType] = list(GGMLQuantizationType)
    return next(kind for kind in members if kind.name.lower() == name.lower())
