"""Hosts that are this machine under other names, reached by a program named ssh on the path.

`FakeHosts` is the tests' side. The file itself is the program; it imports the standard library only. What it
starts has the environment of a login and nothing of the caller's, as an sshd gives it, and a device queue of
its host.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

DOWN, CUT = "down", "cut"
UNREACHED = 255


class FakeHosts:
    """All names are known, and reached until they are `down`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        program = self.bin / "ssh"
        code = f"#!{sys.executable} -SE\n{Path(__file__).read_text('utf-8')}"
        program.write_text(code, encoding="utf-8")
        program.chmod(0o755)
        login = {"PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}", "HOME": str(folder)}
        kept = {name: os.environ[name] for name in ("PYTHONPATH", "OMP_NUM_THREADS") if name in os.environ}
        (folder / "login.json").write_text(json.dumps(login | kept), encoding="utf-8")

    def give(self, host: str, **variables: str) -> None:
        """Environment variables of a login there."""
        (self.folder / f"{host}.json").write_text(json.dumps(variables), encoding="utf-8")

    def down(self, host: str) -> None:
        """Nobody answers at its address."""
        (self.folder / f"{host}.{DOWN}").touch()

    def up(self, host: str) -> None:
        (self.folder / f"{host}.{DOWN}").unlink()

    def cut(self, host: str) -> None:
        """Its network is gone: this side's ssh ends, and the other side hears nothing, not even that."""
        (self.folder / f"{host}.{CUT}").touch()

    def mend(self, host: str) -> None:
        (self.folder / f"{host}.{CUT}").unlink()

    def runtime(self, host: str) -> Path:
        """The device queue of a host."""
        return self.folder / f"runtime-{host}"

    def calls(self) -> list[dict[str, Any]]:
        """The arguments of all calls."""
        lines = (self.folder / "calls.jsonl").read_text("utf-8").splitlines()
        return [json.loads(line) for line in lines]


# --- The program. ---
def main() -> int:
    folder = Path(sys.argv[0]).parent.parent
    options, host, *command = split(sys.argv[1:])
    if "-G" in options:
        print("user me\nhostname 127.0.0.1\nport 22")
        return 0
    with (folder / "calls.jsonl").open("a", encoding="utf-8") as calls:
        calls.write(json.dumps({"host": host, "options": options, "command": command[0]}) + "\n")
    if (folder / f"{host}.{DOWN}").exists():
        print(f"ssh: connect to host {host} port 22: Connection refused", file=sys.stderr)
        return UNREACHED
    return talk(folder, host, command[0])


def split(arguments: list[str]) -> list[str]:
    """Options together as the first word, then the host and the command."""
    place = arguments.index("--")
    return [shlex.join(arguments[:place]), *arguments[place + 1 :]]


def talk(folder: Path, host: str, command: str) -> int:
    """The near side. The far side goes on when this one is killed, until it sees that its input has ended."""
    far = subprocess.Popen(
        [sys.executable, "-SE", sys.argv[0], "--far", str(folder), host, command],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    assert far.stdin is not None
    threading.Thread(target=pump, args=(sys.stdin.fileno(), far.stdin.fileno()), daemon=True).start()
    while far.poll() is None:
        if (folder / f"{host}.{CUT}").exists():
            return UNREACHED
        time.sleep(0.05)
    return far.returncode if far.returncode >= 0 else UNREACHED


def pump(source: int, target: int) -> None:
    while data := os.read(source, 65536):
        os.write(target, data)
    os.close(target)


def far(folder: Path, host: str, command: str) -> int:
    """What sshd does: a shell with the environment of a login, and a pipe to it."""
    login = json.loads((folder / "login.json").read_text("utf-8"))
    own = folder / f"{host}.json"
    login |= json.loads(own.read_text("utf-8")) if own.exists() else {}
    login["BACKPROPAGATE_RUNTIME_DIR"] = str(folder / f"runtime-{host}")
    shell = shutil.which("sh") or "sh"
    process = subprocess.Popen([shell, "-c", command], env=login, cwd=folder, stdin=subprocess.PIPE)
    assert process.stdin is not None
    threading.Thread(target=receive, args=(process, folder / f"{host}.{CUT}"), daemon=True).start()
    return process.wait()


def receive(process: subprocess.Popen[bytes], cut: Path) -> None:
    assert process.stdin is not None
    while (data := os.read(0, 65536)) and not cut.exists():
        process.stdin.write(data)
        process.stdin.flush()
    if not cut.exists():
        process.stdin.close()


if __name__ == "__main__":
    sys.exit(far(Path(sys.argv[2]), *sys.argv[3:]) if sys.argv[1] == "--far" else main())
