"""Registers a GGUF file with Ollama in the caller's process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .config.settings import load_settings
from .errors import InputError
from .export.ollama.registration import Registration
from .files.paths import PathPolicy
from .requests.register import register_spec
from .runs.store import RunStore
from .worker import register
from .worker.context import RunContext, WaitForDevice
from .worker.in_process import run_in_process


def register_with_ollama(
    path: str | Path,
    name: str,
    *,
    system: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    keep_template: bool = False,
    overwrite: bool = False,
    question: str | None = None,
    system_prompt: str | None = None,
) -> Registration:
    """Register a GGUF file as a model of the Ollama server at OLLAMA_HOST, and ask it a question.

    Works in the calling process, and is recorded as a run.

    Args:
        path: a .gguf file, or the id of a run that has one.
        name: model name in Ollama: `[host/][namespace/]model[:tag]`.
        system: system message; None: the default of the model's chat template.
        parameters: e.g. `{"temperature": 0.2, "num_ctx": 8192}`.
        keep_template: let the server choose the chat template.
        overwrite: replace an existing model of this name.
        question: for the model. Default: one that its run answered, or from its held-out rows.
        system_prompt: another name of `system`.

    Raises:
        InputError: the file or the run does not exist, or system is given under both names.
        OllamaError: the registration failed; the message contains the next step.
    """
    if system is not None and system_prompt is not None:
        raise InputError("system is given twice: system_prompt is the same argument.", hint="Give it once.")
    settings = load_settings()
    store = RunStore(settings.home)
    spec = register_spec(
        str(path),
        name,
        store,
        PathPolicy.for_person(settings.home),
        system=system_prompt if system is None else system,
        parameters=parameters,
        keep_template=keep_template,
        overwrite=overwrite,
        question=question,
    )
    registrations: list[Registration] = []

    def execute(context: RunContext, wait_for_device: WaitForDevice) -> None:
        registrations.append(register.run(context, wait_for_device))

    run_in_process(execute, store.create(spec), store, settings.runtime_dir)
    return registrations[0]
