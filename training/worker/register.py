"""A registration with Ollama: by a worker of the short lane as a run, or in the caller's own process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..config.settings import load_settings
from ..config.specs import RegisterSpec
from ..export.ollama.question import question_for
from ..export.ollama.register import register
from ..export.ollama.registration import Registration, RegistrationRequest
from ..files.paths import PathPolicy
from ..requests.build import register_spec
from ..runs.folder import RunFolder
from ..runs.store import RunStore
from .context import Work


def carry_out(work: Work, take_turn: Callable[[], None]) -> None:
    """Register the run's GGUF file, and write down what came of it.

    Raises:
        OllamaError: it did not work.
        TrainingAbortedError: it was cancelled; the server has no new model.
    """
    spec = work.run.spec()
    assert isinstance(spec, RegisterSpec)
    take_turn()
    work.permit(Path(spec.gguf))

    request = _request(spec, work.run.path.parent, work.permit)
    found = register(request, work.report, work.should_stop)
    for warning in found.warnings:
        work.journal.warning(warning)
    work.journal.completed(_record(found))


def register_with_ollama(
    path: str | Path,
    name: str,
    *,
    system: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    keep_template: bool = False,
    overwrite: bool = False,
    question: str | None = None,
) -> Registration:
    """Make a GGUF file a model of the Ollama server that OLLAMA_HOST names, and ask it something.

    Works in the calling process, and is not recorded as a run.

    Args:
        path: a .gguf file, or the id of a run that has one.
        name: of the model in Ollama: `[host/][namespace/]model[:tag]`.
        system: system message; None: the one that the model's chat template puts in by itself.
        parameters: e.g. `{"temperature": 0.2, "num_ctx": 8192}`.
        keep_template: leave the chat template to the server.
        overwrite: replace a model of this name.
        question: asked of the model; by default one that its run has an answer to, or held out.

    Raises:
        InputError: there is no such file or run.
        OllamaError: it did not work; says why, and what to do.
    """
    settings = load_settings()
    paths = PathPolicy.for_person(settings.home)
    store = RunStore(settings.home)
    spec = register_spec(
        str(path),
        name,
        store,
        paths,
        system=system,
        parameters=parameters,
        keep_template=keep_template,
        overwrite=overwrite,
        question=question,
    )
    return register(_request(spec, store.runs, paths.permit))


def _request(spec: RegisterSpec, runs: Path, permit: Callable[[Path], object]) -> RegistrationRequest:
    training = RunFolder(runs / spec.run) if spec.run else None
    return RegistrationRequest(
        path=Path(spec.gguf),
        name=spec.name,
        system=spec.system,
        parameters=spec.parameters,
        keep_template=spec.keep_template,
        overwrite=spec.overwrite,
        question=question_for(training, spec.question, permit),
    )


def _record(found: Registration) -> dict[str, Any]:
    """The registration as a run's result."""
    question = found.question
    answer = {"question": question.text, "after": question.trained_answer, "in_ollama": found.answer}
    return {
        "outcome": "registered",
        "path": str(found.path),
        "summary": _summary(found),
        "name": found.name,
        "server": found.server,
        "server_version": found.server_version,
        "bytes": found.size,
        "uploaded": found.uploaded,
        "replaced": found.replaced,
        "template": found.template.kind,
        "stop": found.stop,
        "system": found.system,
        "question_from": question.origin,
        "answers": [answer],
    }


def _summary(found: Registration) -> str:
    done = "replaced" if found.replaced else "registered"
    own = "" if found.question.trained_answer else "; no answer of the trained model itself is written down"
    return (
        f"{done} as {found.name} with Ollama {found.server_version} at {found.server}. "
        f"It uses {found.template.sentence}, and was asked {found.question.origin}{own}."
    )
