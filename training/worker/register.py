"""Executes a registration with Ollama, in the short queue."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..config.results import Answer, RegisterResult
from ..config.specs import RegisterSpec
from ..export.ollama.question import question_for
from ..export.ollama.register import register
from ..export.ollama.registration import Registration, RegistrationRequest
from ..runs.folder import RunFolder
from .context import RunContext, WaitForDevice


def run(context: RunContext, wait_for_device: WaitForDevice) -> Registration:
    """Register the run's GGUF file.

    Raises:
        OllamaError: the registration failed.
        TrainingAbortedError: it was cancelled; the server has no new model.
    """
    spec = context.run.spec()
    assert isinstance(spec, RegisterSpec)
    wait_for_device()
    context.permit(Path(spec.gguf))

    request = _request(spec, context.run.path.parent, context.permit)
    found = register(request, context.report, context.should_stop)
    for warning in found.warnings:
        context.recorder.warn(warning)
    context.recorder.completed(_result(found))
    return found


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


def _result(found: Registration) -> RegisterResult:
    question = found.question
    answer = Answer(question=question.text, after=question.trained_answer, in_ollama=found.answer)
    return RegisterResult(
        path=str(found.path),
        summary=_summary(found),
        name=found.name,
        server=found.server,
        server_version=found.server_version,
        bytes=found.size,
        uploaded=found.uploaded,
        replaced=found.replaced,
        template=found.template.kind,
        stop=found.stop,
        system=found.system,
        question_from=question.origin,
        digest=found.digest,
        answers=[answer],
    )


def _summary(found: Registration) -> str:
    done = "replaced" if found.replaced else "registered"
    own = "" if found.question.trained_answer else "; the run has no answer of the trained model to compare"
    return (
        f"{done} as {found.name} with Ollama {found.server_version} at {found.server}. "
        f"It uses {found.template.sentence}, and was asked {found.question.origin}{own}."
    )
