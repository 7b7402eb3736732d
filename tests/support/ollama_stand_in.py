"""A stand-in for an Ollama server, written from the real one's source: what it takes, refuses and says.

    before 0.5.5      knows only Modelfiles
    0.5.5 to 0.29     Go templates only; a GGUF whose Jinja resembles none that it knows gets `{{ .Prompt }}`
    from 0.9.6        file names without paths only
    from 0.17.6       reads `:local`, `:cloud` and `-cloud` at a name's end as a place, except in create
    0.30 to 0.34.0    runs the GGUF's Jinja where it has no Go template; checks GGUFs and rewrites them
    from 0.34.1       no LoRA adapters, no quantising of GGUFs

It stores blobs and models, but no model ever runs: answers are canned. Faults can be put in by endpoint.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

from gguf import GGUFReader

CREATED_AT = "2026-11-22T09:07:12.345Z"
NO_TEMPLATE = "{{ .Prompt }}"
CHATML = """\
{{- range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
"""
SHARED = (
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
STOP = ["<|im_start|>", "<|im_end|>"]
TEMPLATES = (
    ("chatml", "{% for message in messages %}" + SHARED, CHATML, STOP),
    (
        "chatml",
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}" + SHARED,
        CHATML,
        STOP,
    ),
)
"""Some of the templates that the real server knows: name, Jinja, Go, stop texts."""

PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"
NAME = re.compile(
    rf"(?:(?:([A-Za-z0-9_][\w.:-]{{0,349}})/)?([A-Za-z0-9_][\w-]{{0,79}})/)?({PART})(?::({PART}))?", re.ASCII
)
DIGEST = re.compile(r"sha256[:-][0-9a-fA-F]{64}")

Endpoint = Literal["version", "tags", "blob", "upload", "create", "copy", "show", "delete", "chat"]


@dataclass
class Fault:
    """What goes wrong at an endpoint.

    refuse: an error before anything else; late: an error as the last line of a stream;
    cut: a stream that ends before its time; hang_up: the connection is dropped; silence: no answer, until
    the server is stopped; redirect: to somewhere else; page: HTML instead of JSON.
    """

    kind: Literal["refuse", "late", "cut", "hang_up", "silence", "redirect", "page"]
    text: str = ""
    status: int = 500


@dataclass
class Model:
    """A model as the server holds it."""

    name: str
    digest: str
    template: str | None  # Go
    jinja: str
    system: str
    parameters: dict[str, Any]


class Refusal(Exception):
    """An error that the server answers with."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


@dataclass
class OllamaStandIn:
    """A server on a free port of this machine; `with OllamaStandIn(folder, "0.30.0") as server: …`."""

    folder: Path
    version: str = "0.34.1"
    answers: dict[str, str] = field(default_factory=dict)
    faults: dict[Endpoint, Fault] = field(default_factory=dict)
    models: dict[tuple[str, ...], Model] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    on_create: Callable[[], None] = lambda: None
    elsewhere: list[str] = field(default_factory=list)
    """What was asked of models of the cloud."""

    def __enter__(self) -> OllamaStandIn:
        self.stopped = threading.Event()
        handler = type("Handler", (_Handler,), {"server_state": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    @property
    def release(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self.version.split("-")[0].split("."))

    def blob(self, digest: str) -> Path:
        if not DIGEST.fullmatch(digest):
            raise Refusal(400, "invalid digest format")
        return self.folder / digest.replace(":", "-")

    def found(self, name: object) -> Model:
        base, place = reference(str(name)) if self.release >= (0, 17, 6) else (str(name), "")
        if place == "cloud":
            self.elsewhere.append(str(name))
            raise Refusal(403, f"remote model is unavailable: {name}")
        model = self.models.get(full_name(base) or ())
        if model is None:
            raise Refusal(404, f"model '{name}' not found")
        return model

    # --- what the server does -----------------------------------------------------------------------
    def take_blob(self, digest: str, data: bytes) -> int:
        path = self.blob(digest)
        if path.exists():
            return 200
        real = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blob(real).write_bytes(data)
        if real != digest.replace("-", ":"):
            raise Refusal(400, f'digest mismatch, expected "{digest}", got "{real}"')
        return 201

    def create(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The steps of a creation; raises Refusal before the first or after some."""
        name = str(request.get("model") or request.get("name") or "")
        if self.release < (0, 5, 5):
            raise Refusal(400, "path or modelfile are required")
        full = full_name(name)
        if full is None:
            raise Refusal(400, "invalid model name")
        files: dict[str, str] = request.get("files") or {}
        for file in files:
            if self.release >= (0, 9, 6) and not is_relative(file):
                raise Refusal(400, "file path must be relative")
        if request.get("quantize") and files and self.release >= (0, 34, 1):
            raise Refusal(400, "create-time quantization is only supported for safetensors imports")
        if not files:
            raise Refusal(400, "neither 'from' or 'files' was specified")
        yield from self._steps(name, full, next(iter(files.items())), request)

    def _steps(
        self, name: str, full: tuple[str, ...], file: tuple[str, str], request: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        yield {"status": "parsing GGUF"}
        path = self.blob(file[1])
        if not path.exists():
            raise Refusal(500, f"open {path}: no such file or directory")
        jinja = self._read(path, file[0])
        digest = file[1]
        if (0, 30) <= self.release <= (0, 34, 0):
            size = path.stat().st_size
            progress = {"digest": digest, "total": size, "completed": size}
            yield {"status": "validating GGUF model", **progress}
            digest = self._rewritten(path)
            yield {"status": "verifying conversion"}
        self.on_create()
        template = request.get("template") or None
        detected = None if template else detected_template(jinja)
        yield {"status": f"{'using existing' if digest == file[1] else 'creating new'} layer {digest}"}
        if detected:
            yield {"status": f"using autodetected template {detected[0]}"}
        stop = detected[3] if detected else []
        chosen = detected[2] if detected and not (self.release >= (0, 30) and does_more(jinja)) else None
        if template and template.count("{{") != template.count("}}"):
            raise Refusal(400, "template error: unclosed action")
        parameters = {**({"stop": stop} if stop else {}), **(request.get("parameters") or {})}
        yield {"status": "writing manifest"}
        before = self.models.get(full)
        system = str(request.get("system") or "")
        called = before.name if before else name
        self.models[full] = Model(called, digest, template or chosen, jinja, system, parameters)
        if before:
            self._prune(before.digest)
        yield {"status": "success"}

    def _rewritten(self, path: Path) -> str:
        """The digest of the file as the server writes it anew; the uploaded one stays beside it."""
        data = path.read_bytes() + bytes(32)
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blob(digest).write_bytes(data)
        return digest

    def _prune(self, digest: str) -> None:
        """Removes a blob that no model needs any more."""
        if all(model.digest != digest for model in self.models.values()):
            self.blob(digest).unlink(missing_ok=True)

    def copy(self, request: dict[str, Any]) -> None:
        source = self.models.get(full_name(str(request.get("source"))) or ())
        target = full_name(str(request.get("destination")))
        if target is None:
            raise Refusal(400, f'destination "{request.get("destination")}" is invalid')
        if source is None:
            raise Refusal(404, f'model "{request.get("source")}" not found')
        before = self.models.get(target)
        self.models[target] = replace(source, name=before.name if before else str(request["destination"]))
        if before:
            self._prune(before.digest)

    def delete(self, request: dict[str, Any]) -> None:
        model = self.found(request.get("model"))
        del self.models[full_name(model.name) or ()]
        self._prune(model.digest)

    def _read(self, path: Path, source: str) -> str:
        """The chat template of a GGUF; refuses what is none."""
        try:
            reader = GGUFReader(path)
        except Exception:
            raise Refusal(400, "supplied file was not in GGUF format") from None
        kind = reader.get_field("general.type")
        if kind is not None and kind.contents() == "adapter" and self.release >= (0, 34, 1):
            raise Refusal(400, f"LoRA adapters are no longer supported: {source} is a LoRA adapter")
        template = reader.get_field("tokenizer.chat_template")
        return template.contents() if template is not None else ""

    def show(self, model: Model) -> dict[str, Any]:
        own = model.jinja if self.release >= (0, 30) and model.jinja else NO_TEMPLATE
        lines = [
            f"{key:<30} {json.dumps(value)}"
            for key, values in model.parameters.items()
            for value in (values if isinstance(values, list) else [values])
        ]
        return {
            "modelfile": f"FROM {model.name}",
            "parameters": "\n".join(lines),
            "template": model.template or own,
            "system": model.system,
            "details": {"format": "gguf", "family": "llama", "families": ["llama"]},
            "model_info": {"general.architecture": "llama"},
            "capabilities": ["completion"],
            "modified_at": CREATED_AT,
        }

    def tags(self) -> dict[str, Any]:
        return {
            "models": [
                {
                    "name": tagged(model.name),
                    "model": tagged(model.name),
                    "modified_at": CREATED_AT,
                    "size": self.blob(model.digest).stat().st_size,
                    "digest": model.digest.removeprefix("sha256:"),
                    "details": {"format": "gguf", "family": "llama"},
                }
                for model in self.models.values()
            ]
        }

    def chat(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        model = self.found(request.get("model"))
        question = request["messages"][-1]["content"]
        answer = self.answers.get(question, f"a canned answer to {question}")
        shared = {"model": model.name, "created_at": CREATED_AT}
        if "<think>" in model.jinja and request.get("think") is not False:
            thought = {"role": "assistant", "content": "", "thinking": "Let me think. "}
            yield {**shared, "message": thought, "done": False}
        for word in re.findall(r"\S+\s*", answer):
            yield {**shared, "message": {"role": "assistant", "content": word}, "done": False}
        yield {
            **shared,
            "message": {"role": "assistant", "content": ""},
            "done": True,
            "done_reason": "stop",
            "total_duration": 1,
        }


def full_name(name: str) -> tuple[str, ...] | None:
    """The four parts of a name as the server compares them, or None if it is invalid."""
    found = NAME.fullmatch(name)
    if found is None:
        return None
    host, namespace, model, tag = found.groups()
    parts = (host or "registry.ollama.ai", namespace or "library", model, tag or "latest")
    return tuple(part.lower() for part in parts)


def tagged(name: str) -> str:
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def reference(name: str) -> tuple[str, str]:
    """A name without its end that says where the model is, and that place."""
    base, colon, tail = name.rpartition(":")
    if colon and tail.lower() in {"local", "cloud"}:
        return base, tail.lower()
    if colon and "/" not in tail and tail.lower().endswith("-cloud"):
        return name[: -len("-cloud")], "cloud"
    return name, ""


def is_relative(file: str) -> bool:
    """As Go's fs.ValidPath."""
    parts = file.split("/")
    return bool(file) and not any(part in {"", ".", ".."} for part in parts) and "\\" not in file


def does_more(jinja: str) -> bool:
    """Whether a template has capabilities that none of the known ones here has."""
    return "tools" in jinja or "<think>" in jinja


def detected_template(jinja: str) -> tuple[str, str, str, list[str]] | None:
    """The nearest known template, if it is less than 100 edits away."""
    if not jinja:
        return None
    distance, nearest = min(
        ((_distance(jinja, known[1]), known) for known in TEMPLATES), key=lambda found: found[0]
    )
    return nearest if distance < 100 else None


def _distance(one: str, other: str) -> int:
    """Levenshtein's."""
    if abs(len(one) - len(other)) >= 100:
        return 100
    row = list(range(len(other) + 1))
    for index, letter in enumerate(one, 1):
        before, row[0] = row[0], index
        for place, wanted in enumerate(other, 1):
            before, row[place] = (
                row[place],
                min(row[place] + 1, row[place - 1] + 1, before + (letter != wanted)),
            )
    return row[-1]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves in the middle is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    """The HTTP side."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_state: OllamaStandIn

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        state = self.server_state
        if self.path == "/":
            self._send(200, b"Ollama is running", "text/plain")
        elif self.path == "/api/version":
            self._answer("version", lambda _: {"version": state.version})
        elif self.path == "/api/tags":
            self._answer("tags", lambda _: state.tags())
        else:
            self._send(404, b"404 page not found", "text/plain")

    def do_HEAD(self) -> None:
        def look(_: dict[str, Any]) -> dict[str, Any]:
            if not self.server_state.blob(self._digest()).exists():
                raise Refusal(404, f'blob "{self._digest()}" not found')
            return {}

        self._answer("blob", look)

    def do_DELETE(self) -> None:
        self._done("delete", self.server_state.delete)

    def do_POST(self) -> None:
        state = self.server_state
        if self.path.startswith("/api/blobs/"):
            self._upload()
        elif self.path == "/api/create":
            self._stream("create", state.create)
        elif self.path == "/api/copy":
            self._done("copy", state.copy)
        elif self.path == "/api/show":
            self._answer("show", lambda request: state.show(state.found(request.get("model"))))
        elif self.path == "/api/chat":
            self._stream("chat", state.chat)
        else:
            self._send(404, b"404 page not found", "text/plain")

    # --- answers ------------------------------------------------------------------------------------
    def _digest(self) -> str:
        return self.path.rpartition("/")[2]

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts: list[bytes] = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _request(self) -> dict[str, Any]:
        request = json.loads(self._body() or b"{}")
        self.server_state.bodies.append(request)
        return request

    def _faulty(self, endpoint: Endpoint) -> bool:
        """Whether a fault has answered already."""
        self.server_state.requests.append(endpoint)
        fault = self.server_state.faults.get(endpoint)
        match fault.kind if fault else None:
            case "refuse":
                self._error(Refusal(fault.status, fault.text))
            case "redirect":
                self._send(307, b"", "text/plain", {"Location": fault.text})
            case "page":
                self._send(200, b"<html>A router's page</html>", "text/html")
            case "hang_up":
                self.close_connection = True
                self.connection.shutdown(2)
            case "silence":
                self.server_state.stopped.wait()
                self.close_connection = True
            case _:
                return False
        return True

    def _answer(self, endpoint: Endpoint, act: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        request = self._request()
        if self._faulty(endpoint):
            return
        try:
            self._json(200, act(request))
        except Refusal as refusal:
            self._error(refusal)

    def _done(self, endpoint: Endpoint, act: Callable[[dict[str, Any]], None]) -> None:
        """Does it, and answers without a body."""
        request = self._request()
        if self._faulty(endpoint):
            return
        try:
            act(request)
            self._send(200, b"", "text/plain")
        except Refusal as refusal:
            self._error(refusal)

    def _upload(self) -> None:
        data = self._body()
        if self._faulty("upload"):
            return
        try:
            self._send(self.server_state.take_blob(self._digest(), data), b"", "text/plain")
        except Refusal as refusal:
            self._error(refusal)

    def _stream(self, endpoint: Endpoint, act: Callable[[dict[str, Any]], Iterator[dict[str, Any]]]) -> None:
        request = self._request()
        if self._faulty(endpoint):
            return
        lines = self._lines(endpoint, act(request))
        if request.get("stream") is False:
            self._whole(list(lines))
            return
        first = next(lines)
        if "error" in first:
            self._error(Refusal(first["status"], first["error"]))
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for line in (first, *lines):
            line = {"error": line["error"]} if "error" in line else line
            data = json.dumps(line).encode() + b"\n"
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def _lines(self, endpoint: Endpoint, lines: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        fault = self.server_state.faults.get(endpoint)
        try:
            for number, line in enumerate(lines):
                if fault and number == 2:
                    if fault.kind == "late":
                        yield {"error": fault.text, "status": fault.status}
                    return
                yield line
        except Refusal as refusal:
            yield {"error": refusal.text, "status": refusal.status}

    def _whole(self, lines: list[dict[str, Any]]) -> None:
        last = lines[-1]
        if "error" in last:
            self._error(Refusal(last["status"], last["error"]))
            return
        if "message" in last:
            text = "".join(line["message"]["content"] for line in lines)
            last = {**last, "message": {"role": "assistant", "content": text}}
        self._json(200, last)

    def _error(self, refusal: Refusal) -> None:
        self._json(refusal.status, {"error": refusal.text})

    def _json(self, status: int, value: dict[str, Any]) -> None:
        self._send(status, json.dumps(value).encode(), "application/json; charset=utf-8")

    def _send(self, status: int, body: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
