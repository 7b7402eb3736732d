"""Tokenise texts with llama.cpp, in a separate process: a failed assertion in C++ ends its process.

    python -m backpropagate.training.export.verify.llama_tokens FILE.gguf

reads a JSON list of {"text", "parse_special", "add_special"} and prints a list of lists of ids.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypedDict

from ...errors import GgufExportError
from ...untrusted import shown_path


class TokenizeRequest(TypedDict):
    """A text, whether control tokens in it are recognised, and whether bos and eos are added."""

    text: str
    parse_special: bool
    add_special: bool


def llama_cpp_is_installed() -> bool:
    return find_spec("llama_cpp") is not None


def llama_token_ids(gguf: Path, requests: Sequence[TokenizeRequest]) -> list[list[int]]:
    """The token ids of each text by llama.cpp, with the tokenizer in the file.

    Raises:
        GgufExportError: llama.cpp could not load the file or crashed.
    """
    # On stdout only JSON is printed; the native library logs to stderr.
    done = subprocess.run(
        [sys.executable, "-P", "-m", __spec__.name, str(gguf.resolve())],
        input=json.dumps(requests).encode(),
        capture_output=True,
        cwd=gguf.parent,
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-3:]
        raise GgufExportError(
            f"llama.cpp could not tokenise with {shown_path(gguf)} (exit code {done.returncode}).",
            untrusted=" / ".join(said),
        )
    return json.loads(done.stdout)


def main(path: str) -> None:
    requests: list[TokenizeRequest] = json.load(sys.stdin)
    print(json.dumps(_tokenise(path, requests)))


def _tokenise(path: str, requests: Sequence[TokenizeRequest]) -> list[list[int]]:
    import llama_cpp  # pyright: ignore[reportMissingImports]

    lib: Any = llama_cpp
    lib.llama_backend_init()
    how = lib.llama_model_default_params()
    how.vocab_only = True
    model = lib.llama_model_load_from_file(path.encode(), how)
    if not model:
        raise SystemExit(f"{path} cannot be loaded")
    vocab = lib.llama_model_get_vocab(model)
    return [_ids(lib, vocab, request) for request in requests]


def _ids(lib: Any, vocab: Any, request: TokenizeRequest) -> list[int]:
    text = request["text"].encode()
    room = len(text) + 16
    ids = (lib.llama_token * room)()
    count = lib.llama_tokenize(
        vocab, text, len(text), ids, room, request["add_special"], request["parse_special"]
    )
    if count < 0:
        raise SystemExit(f"{-count} tokens for {len(text)} bytes")
    return list(ids[:count])


if __name__ == "__main__":
    main(sys.argv[1])
