"""As much of the Hub as a push needs: repositories, git-LFS uploads (also in parts), commits, and faults.

Files are kept, and an upload whose sha256 is not the promised one is refused, as storage does.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

TOKEN = "hf_" + "StandInToken0123456789"
SIGNATURE = "X-Amz-Signature=TopSecretSignature"
WAIT_S = 60.0


@dataclass
class Repository:
    private: bool = True
    files: dict[str, bytes] = field(default_factory=dict[str, bytes])
    commits: list[str] = field(default_factory=lambda: ["0" * 40])

    @property
    def head(self) -> str:
        return self.commits[-1]


@dataclass
class Fault:
    """What happens to the next `times` requests whose method and path fit `pattern`."""

    pattern: str
    status: int = 0
    message: str = ""
    times: int = 1
    cut: bool = False
    """Read half of the body, and hang up."""
    hold: Event | None = None
    """Read half of the body, and wait for this."""


class HubStandIn:
    """`endpoint` is its address; `close()` ends it."""

    def __init__(self, *, part_bytes: int | None = None) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        """LFS objects by sha256."""
        self.part_bytes = part_bytes
        """Larger files are uploaded in parts of this size."""
        self.faults: list[Fault] = []
        self.asked: list[str] = []
        """Method and path of every request."""
        self.token = TOKEN
        self._parts: dict[str, dict[int, bytes]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def uploads(self) -> list[str]:
        return [request for request in self.asked if request.startswith("PUT ")]

    def fault_for(self, request: str) -> Fault | None:
        for fault in self.faults:
            if fault.times and re.search(fault.pattern, request):
                fault.times -= 1
                return fault
        return None

    # --- what is asked ------------------------------------------------------------------------------
    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        for pattern, action in self._routes():
            found = re.fullmatch(pattern, f"{method} {path}")
            if found:
                return action(body, *found.groups())
        return 404, {"error": f"no such address: {path}"}

    def _routes(self) -> list[tuple[str, Callable[..., tuple[int, Any]]]]:
        repo = r"([\w.-]+/[\w.-]+)"
        return [
            (r"POST /api/repos/create", self._create),
            (r"POST /api/validate-yaml", self._validate),
            (rf"GET /api/models/{repo}(?:/revision/main)?", self._info),
            (rf"(?:GET|HEAD) /{repo}/resolve/\w+/([\w.-]+)", self._file),
            (rf"POST /api/models/{repo}/preupload/main", self._preupload),
            (rf"POST /api/models/{repo}/commit/main", self._commit),
            (rf"POST /{repo}\.git/info/lfs/objects/batch", self._batch),
            (r"PUT /lfs/(\w+)", self._put),
            (r"PUT /lfs/(\w+)/(\d+)", self._put_part),
            (r"POST /lfs/(\w+)/complete", self._complete),
            (r"POST /lfs/(\w+)/verify", self._verify),
        ]

    def _create(self, body: bytes) -> tuple[int, Any]:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.repositories:
            return 409, {"error": "You already created this model repo", "url": f"{self.endpoint}/{name}"}
        if asked["organization"] != "me":
            return 403, {"error": f'You don\'t have the rights under the namespace "{asked["organization"]}"'}
        self.repositories[name] = Repository(private=asked.get("visibility") == "private")
        return 200, {"url": f"{self.endpoint}/{name}", "id": name}

    def _validate(self, body: bytes) -> tuple[int, Any]:
        import yaml

        block = json.loads(body)["content"].split("---\n")[1]
        if isinstance(yaml.safe_load(block), dict):
            return 200, {"errors": [], "warnings": []}
        return 400, {"errors": [{"message": '"metadata" must be an object'}], "warnings": []}

    def _info(self, body: bytes, name: str) -> tuple[int, Any]:
        repository = self.repositories.get(name)
        if repository is None:
            return 404, {"error": "Repository not found", "code": "RepoNotFound"}
        return 200, {
            "id": name,
            "sha": repository.head,
            "private": repository.private,
            "siblings": [{"rfilename": file} for file in repository.files],
            "cardData": _card_data(repository.files.get("README.md")),
        }

    def _file(self, body: bytes, name: str, file: str) -> tuple[int, Any]:
        content = self.repositories[name].files.get(file)
        if content is None:
            return 404, {"error": "Entry not found", "code": "EntryNotFound"}
        return 200, content

    def _preupload(self, body: bytes, name: str) -> tuple[int, Any]:
        held = self.repositories[name].files
        return 200, {
            "files": [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                    "oid": _oid(file["path"], held.get(file["path"])),
                }
                for file in json.loads(body)["files"]
            ]
        }

    def _batch(self, body: bytes, name: str) -> tuple[int, Any]:
        return 200, {"objects": [self._action(item["oid"], item["size"]) for item in _objects(body)]}

    def _action(self, oid: str, size: int) -> dict[str, Any]:
        if oid in self.objects:
            return {"oid": oid, "size": size}
        place = f"{self.endpoint}/lfs/{oid}"
        upload: dict[str, Any] = {"href": f"{place}?{SIGNATURE}"}
        if self.part_bytes and size > self.part_bytes:
            numbers = range(1, -(-size // self.part_bytes) + 1)
            parts = {str(number): f"{place}/{number}?{SIGNATURE}" for number in numbers}
            upload = {
                "href": f"{place}/complete",
                "header": {"chunk_size": str(self.part_bytes), **parts},
            }
        return {
            "oid": oid,
            "size": size,
            "actions": {"upload": upload, "verify": {"href": f"{place}/verify"}},
        }

    def _put(self, body: bytes, oid: str) -> tuple[int, Any]:
        if hashlib.sha256(body).hexdigest() != oid:
            return 400, {"error": "sha256 differs"}
        self.objects[oid] = body
        return 200, {}

    def _put_part(self, body: bytes, oid: str, number: str) -> tuple[int, Any]:
        self._parts.setdefault(oid, {})[int(number)] = body
        return 200, {"etag": hashlib.md5(body).hexdigest()}

    def _complete(self, body: bytes, oid: str) -> tuple[int, Any]:
        parts = self._parts.pop(oid)
        promised = [part["etag"] for part in json.loads(body)["parts"]]
        assert promised == [hashlib.md5(parts[number]).hexdigest() for number in sorted(parts)]
        return self._put(b"".join(parts[number] for number in sorted(parts)), oid)

    def _verify(self, body: bytes, oid: str) -> tuple[int, Any]:
        known = len(self.objects.get(oid, b"")) == json.loads(body)["size"]
        return (200, {}) if known else (404, {"error": "not uploaded"})

    def _commit(self, body: bytes, name: str) -> tuple[int, Any]:
        repository = self.repositories[name]
        lines = [json.loads(line) for line in body.splitlines()]
        parent = lines[0]["value"].get("parentCommit")
        if parent not in (None, repository.head):
            return 412, {"error": "A commit has happened since. Please refresh and try again."}
        for line in lines[1:]:
            value = line["value"]
            match line["key"]:
                case "file":
                    repository.files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    repository.files[value["path"]] = self.objects[value["oid"]]
                case "deletedFile":
                    del repository.files[value["path"]]
        repository.commits.append(hashlib.sha1(body + repository.head.encode()).hexdigest())
        return 200, {
            "commitUrl": f"{self.endpoint}/{name}/commit/{repository.head}",
            "commitOid": repository.head,
        }


def _objects(body: bytes) -> list[dict[str, Any]]:
    return json.loads(body)["objects"]


def _oid(path: str, content: bytes | None) -> str | None:
    if content is None:
        return None
    if path.endswith(".safetensors"):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def _card_data(card: bytes | None) -> dict[str, Any] | None:
    import yaml

    return yaml.safe_load(card.decode().split("---\n")[1]) if card and card.startswith(b"---\n") else None


def _handler(hub: HubStandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            request = f"{self.command} {path}"
            hub.asked.append(request)
            fault = hub.fault_for(request)
            length = int(self.headers.get("Content-Length") or 0)
            if fault and (fault.cut or fault.hold):
                self.rfile.read(length // 2)
                if fault.hold:
                    fault.hold.wait(WAIT_S)
                self.close_connection = True
                return
            body = self.rfile.read(length)
            if fault:
                self.reply(fault.status, {"error": fault.message})
            elif not path.startswith("/lfs/") and self.headers.get("Authorization") != f"Bearer {hub.token}":
                self.reply(401, {"error": "Invalid username or password."})
            else:
                self.reply(*hub.answer(self.command, path, body))

        do_POST = do_PUT = do_HEAD = do_GET

        def reply(self, status: int, answer: dict[str, Any] | bytes) -> None:
            if isinstance(answer, bytes):
                self.reply_file(answer)
                return
            body = json.dumps(answer).encode()
            headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
            if "code" in answer:
                headers["X-Error-Code"] = answer["code"]
            if "etag" in answer:
                headers["ETag"] = answer["etag"]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def reply_file(self, content: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", self.path.split("/")[4])
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *arguments: object) -> None: ...

    return Handler
