"""The quantizations of GGUF files: their names and requirements. Cheap to import."""

from __future__ import annotations

from importlib.util import find_spec

from ..errors import InputError, MissingExtraError
from ..nearest_name import nearest

PLAIN = ("f32", "f16", "bf16", "q8_0")
"""Written without any compiled dependency."""

WITH_EXTRA = (
    *("q6_k", "q5_k_m", "q5_k_s", "q5_1", "q5_0", "q4_k_m", "q4_k_s", "q4_1", "q4_0"),
    *("iq4_nl", "iq4_xs", "q3_k_l", "q3_k_m", "q3_k_s", "iq3_m", "iq3_s", "q2_k", "tq2_0", "tq1_0"),
)
"""Quantized by llama.cpp."""

WITH_IMATRIX = ("q2_k_s", "iq3_xs", "iq3_xxs", "iq2_m", "iq2_s", "iq2_xs", "iq2_xxs", "iq1_m", "iq1_s")
"""As WITH_EXTRA; these also need an importance matrix."""

SHORT_NAMES = {"q5_k": "q5_k_m", "q4_k": "q4_k_m", "q3_k": "q3_k_m"}
DEFAULT = "q4_k_m"
AS_STORED = "q8_0"
"""If none is given, of a model whose experts keep the 4 bits in which they are stored (gpt-oss)."""
EXTRA = 'pip install "backpropagate-mcp[export]"'


def known_quantization(name: str) -> str:
    """The quantization of this name, in lower case.

    Raises:
        InputError: the name is unknown.
    """
    given = name.lower().replace("-", "_")
    given = SHORT_NAMES.get(given, given)
    known = [*PLAIN, *WITH_EXTRA, *WITH_IMATRIX]
    if given not in known:
        close = nearest(given, known)
        raise InputError(
            f"quantization: {name!r} does not exist.",
            hint=(f"Did you mean {close}? " if close else "") + f"Known: {', '.join(known)}.",
        )
    return given


def default_quantization(imatrix: bool) -> str:
    """The quantization if none is given: q4_k_m with llama-cpp-python or for an imatrix, else q8_0."""
    return DEFAULT if imatrix or find_spec("llama_cpp") is not None else "q8_0"


def note_on_default(taken: str, as_stored: bool) -> str:
    """A sentence for users who gave no quantization, and do not get the usual default.

    Args:
        as_stored: whether the model's experts keep the bits in which they are stored.
    """
    if as_stored:
        return f"Using {taken}: the experts keep the 4 bits in which they are stored; this is about the rest."
    return f"Using {taken}: {DEFAULT} (about half the size) needs llama-cpp-python: {EXTRA}."


def require(quantization: str, imatrix: bool) -> None:
    """Check that this installation can write the quantization.

    Raises:
        InputError: the quantization needs an importance matrix, or cannot use one.
        MissingExtraError: llama.cpp is needed and not installed.
    """
    if quantization in PLAIN:
        if imatrix:
            raise InputError(
                f"imatrix: {quantization} does not use an importance matrix.", hint="Leave imatrix out."
            )
        return
    if quantization in WITH_IMATRIX and not imatrix:
        raise InputError(
            f"quantization: {quantization} needs an importance matrix.",
            hint="Set imatrix=true, or use iq3_s, q3_k_m or q4_k_m.",
        )
    if find_spec("llama_cpp") is None:
        raise MissingExtraError(
            f"{quantization} needs llama-cpp-python, which is not installed.",
            hint=f"{EXTRA} (compiles for about 5 minutes), or use q8_0, which needs nothing else.",
        )
