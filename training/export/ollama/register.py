"""Registers a GGUF file with an Ollama server: check, upload, create, and ask a question.

Afterwards the server has either a model that answered, or what it had before: a model that is replaced keeps
its name until the new one has answered under another. After a failure an uploaded file may stay among the
server's blobs until it restarts: its API cannot remove one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from ...config.ollama_names import ModelName, model_name
from ...errors import OllamaError, TrainingAbortedError
from ...events import Phase, Report, ShouldStop, never_stop, no_report, throttled
from ...files.regular_file import open_permitted
from ...next_step import then
from ...untrusted import quoted
from .address import ollama_address
from .create_request import CreateRequest, create_request, require_files
from .effective_template import EffectiveTemplate, effective_template
from .model_file import ModelFile, read_model_file
from .registration import Registration, RegistrationRequest
from .server import CHUNK, OllamaServer

STEPS = (
    "parsing GGUF",
    "validating GGUF model",
    "verifying conversion",
    "using existing layer",
    "creating new layer",
    "using autodetected template",
    "writing manifest",
)
"""The server's steps that are shown by name; others are untrusted text and not shown."""

GUESSED = ("autodetected", "other", "none")

INEXACT = (
    "In longer conversations with a system message, the model's own chat template formats that message "
    "differently."
)


def register(
    request: RegistrationRequest,
    report: Report = no_report,
    should_stop: ShouldStop = never_stop,
) -> Registration:
    """Make a GGUF file a model of the Ollama server that OLLAMA_HOST names.

    Raises:
        OllamaError: it failed.
        TrainingAbortedError: `should_stop` said so.
    """
    name = model_name(request.name)
    report = throttled(report)
    report(Phase(phase="checking", message=f"reading {quoted(request.path.name)}"))
    model = read_model_file(request.path)
    with OllamaServer(ollama_address(), should_stop) as server:
        return _Registering(request, name, model, server, report, should_stop).run()


def check_name_is_free(name: str, overwrite: bool) -> None:
    """Check, before there is a file, that the Ollama server accepts files and that the name is free.

    Raises:
        OllamaError: there is no server, it is too old, or it has a model of this name.
    """
    with OllamaServer(ollama_address()) as server:
        _look(server, model_name(name), overwrite)


def is_registered(name: str, digest: str) -> bool:
    """Whether the Ollama server still has the model that was registered under this name.

    Args:
        digest: of the registered model; empty: any model of the name.
    """
    try:
        with OllamaServer(ollama_address()) as server:
            held = _digest_of(server, model_name(name))
    except OllamaError:  # a new registration says why
        return False
    return held is not None and digest in ("", held)


def _digest_of(server: OllamaServer, name: ModelName) -> str | None:
    return next((digest for known, digest in server.models().items() if name.is_among([known])), None)


def _look(server: OllamaServer, name: ModelName, overwrite: bool) -> tuple[str, bool]:
    """The server's version, and whether it has a model of this name, which may be replaced then."""
    version = server.version()
    require_files(version)
    existed = name.is_among(server.models())
    if existed and not overwrite:
        raise OllamaError(
            f"Ollama already has a model {name}.",
            hint="Choose another name, or replace that model.",
            next=then("ask_again", overwrite=True),
        )
    return version, existed


class _Registering:
    """One registration in progress."""

    def __init__(
        self,
        request: RegistrationRequest,
        name: ModelName,
        model: ModelFile,
        server: OllamaServer,
        report: Report,
        should_stop: ShouldStop,
    ) -> None:
        self._request, self._name, self._model, self._server = request, name, model, server
        self._report, self._should_stop = report, should_stop
        self._warnings: list[str] = []

    def run(self) -> Registration:
        version, existed = _look(self._server, self._name, self._request.overwrite)
        asked = create_request(self._request, self._model, version)
        digest, uploaded = self._upload()
        name = self._name.beside(f"new-{token_hex(4)}") if existed else str(self._name)
        with self._removed_on_failure(name):
            asked, template = self._create(name, asked, digest)
            answer = self._ask(name, must_answer=existed)
            if existed:
                self._server.copy(name, str(self._name))
        if existed and not self._remove(name):
            self._warnings.append(f"The server also holds the new model as {name}; that name may be deleted.")
        return Registration(
            name=str(self._name),
            server=str(self._server.address),
            server_version=version,
            path=self._model.path,
            size=self._model.size,
            uploaded=uploaded,
            replaced=existed,
            template=template,
            stop=asked.body["parameters"].get("stop", []),
            system=asked.body.get("system"),
            question=self._request.question,
            answer=answer,
            digest=self._digest_there(),
            warnings=self._warnings,
        )

    def _phase(self, phase: str, message: str, fraction: float | None = None) -> None:
        self._report(Phase(phase=phase, message=message, fraction=fraction))

    def _digest_there(self) -> str:
        with suppress(OllamaError):  # the model has answered: this is for a later look only
            return _digest_of(self._server, self._name) or ""
        return ""

    # --- the file -----------------------------------------------------------------------------------
    def _upload(self) -> tuple[str, bool]:
        """Make sure that the server has the file: its digest, and whether it had to be sent."""
        digest = self._digest()
        if self._server.has_blob(digest):
            self._phase("uploading", "the server already has the file", 1.0)
            return digest, False
        self._server.upload(self._model.path, digest, self._report)
        return digest, True

    def _digest(self) -> str:
        hashed, done, size = hashlib.sha256(), 0, self._model.size
        with open(open_permitted(self._model.path), "rb") as file:
            while piece := file.read(CHUNK):
                if done % (256 * CHUNK) == 0:
                    message = f"hashing {done / 1e6:,.0f} of {size / 1e6:,.0f} MB"
                    self._phase("checking", message, done / size)
                if self._should_stop():
                    raise TrainingAbortedError("Stopped before the upload.")
                hashed.update(piece)
                done += len(piece)
        return f"sha256:{hashed.hexdigest()}"

    # --- the model ----------------------------------------------------------------------------------
    @contextmanager
    def _removed_on_failure(self, name: str) -> Generator[None]:
        """A model that is to be replaced has another name until the new one has answered."""
        try:
            yield
        except BaseException:
            self._remove(name)
            raise

    def _remove(self, name: str) -> bool:
        """Delete the model if it is there; False if the server does not let us."""
        try:
            if model_name(name).is_among(self._server.models()):
                self._server.delete(name)
        except OllamaError:
            return False
        return True

    def _create(
        self, name: str, asked: CreateRequest, digest: str
    ) -> tuple[CreateRequest, EffectiveTemplate]:
        """Make the model, a second time if the server takes a template of its own that lays out otherwise."""
        found, shown = self._created(name, asked, digest)
        better = asked.with_own_template(shown) if found.kind in GUESSED else None
        if better is not None:
            asked = better
            found, _ = self._created(name, asked, digest)
        if found.warning:
            self._warnings.append(found.warning)
        if found.kind == "sent" and asked.parts is not None and not asked.parts.exact:
            self._warnings.append(INEXACT)
        return asked, found

    def _created(self, name: str, asked: CreateRequest, digest: str) -> tuple[EffectiveTemplate, str]:
        """Make the model, and see which template the server uses for it."""
        body = {"model": name, "files": {_bare(self._model.path): digest}, **asked.body}
        steps = self._server.create(body, lambda step: self._phase("creating", _shown(step)))
        shown = self._server.template_of(name)
        sent = asked.body.get("template")
        return effective_template(shown, sent=sent, own=self._model.chat_template, steps=steps), shown

    def _ask(self, name: str, must_answer: bool) -> str | None:
        """The model's answer; None after an error that may pass.

        Raises:
            OllamaError: the server cannot run it, or it did not answer and must.
        """
        question = self._request.question
        self._phase("trying", f"asking {self._name} a question")
        try:
            answer = self._server.chat(name, question.messages(), question.max_new_tokens)
        except OllamaError as error:
            if must_answer or not error.retryable:
                raise
            self._warnings.append(f"The model is registered, but the question failed: {error.message}")
            return None
        if not answer:
            self._warnings.append("The model's answer was empty.")
        return answer


def _bare(path: Path) -> str:
    """The file's name without characters that the server would read as a path."""
    return f"{re.sub(r'[^A-Za-z0-9_.-]', '-', path.stem).lstrip('.') or 'model'}.gguf"


def _shown(step: str) -> str:
    known = next((name for name in STEPS if step.startswith(name)), None)
    return f"creating the model: {known}" if known else "creating the model"
