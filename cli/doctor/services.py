"""Can the Hub and Ollama be reached, and are llama.cpp's parts here?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from ...training.errors import BackpropagateError
from ...training.untrusted import one_line
from .finding import Finding

HUB = "https://huggingface.co"
ANSWER_S = 5.0
OK = 200
TRUE = {"1", "on", "yes", "true"}


def hub_findings() -> Iterator[Finding]:
    import httpx2

    endpoint = os.environ.get("HF_ENDPOINT") or HUB
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in TRUE:
        repair = "Unset HF_HUB_OFFLINE to download models and datasets."
        yield Finding("Hub", "note", "HF_HUB_OFFLINE is set: only what is in the cache can be used.", repair)
        return
    token = _token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        answer = httpx2.get(f"{endpoint}/api/whoami-v2", headers=headers, timeout=ANSWER_S)
    except Exception as error:  # errors of sockets, proxies and certificates have no common class
        repair = "Check the network and HTTPS_PROXY. Models in the cache and in folders can still be used."
        yield Finding("Hub", "note", f"{endpoint} cannot be reached ({type(error).__name__}).", repair)
        return
    if token is None:
        yield Finding(
            "Hub", "ok", f"{endpoint} answers; there is no token, so only public models can be used."
        )
    elif answer.status_code == OK:
        yield Finding("Hub", "ok", f"{endpoint} answers, and knows the token.")
    else:
        repair = "Set HF_TOKEN to a valid token, or run `hf auth login`."
        yield Finding("Hub", "problem", f"{endpoint} refuses the token ({answer.status_code}).", repair)


def _token() -> str | None:
    """The token of the environment, or the one that `hf auth login` has saved."""
    home = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    saved = Path(os.environ.get("HF_TOKEN_PATH") or home / "token")
    given = os.environ.get("HF_TOKEN") or (saved.read_text(encoding="utf-8") if saved.is_file() else "")
    return given.strip() or None


def ollama_findings() -> Iterator[Finding]:
    import httpx2

    from ...training.export.ollama.address import ollama_address

    try:
        address = ollama_address()
    except BackpropagateError as error:
        yield Finding("Ollama", "problem", error.message, "Correct OLLAMA_HOST.")
        return
    try:
        answer = httpx2.get(
            f"{address.url}/api/version",
            auth=address.user_info,
            timeout=ANSWER_S,
            trust_env=not address.is_local,
        )
        running = one_line(str(answer.json()["version"]), 40)
    except Exception as error:  # of the network, or an answer of some other server
        repair = "Start Ollama, or set OLLAMA_HOST, to register models with it."
        yield Finding(
            "Ollama", "note", f"{address} does not answer as Ollama ({type(error).__name__}).", repair
        )
        return
    yield Finding("Ollama", "ok", f"{address} is Ollama {running}.")


def llama_cpp_findings() -> Iterator[Finding]:
    if find_spec("llama_cpp") is None:
        yield Finding(
            "llama.cpp",
            "note",
            "Not installed: GGUF files are f32, f16, bf16 or q8_0, and are not tried in llama.cpp.",
            'For q4_k_m and others: pip install "backpropagate-mcp[export]"',
        )
        return
    try:
        yield Finding("llama.cpp", "ok", f"llama-cpp-python {version('llama-cpp-python')}")
    except PackageNotFoundError:
        yield Finding("llama.cpp", "ok", "llama_cpp is installed")
