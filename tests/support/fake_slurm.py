"""A Slurm of one user on this machine: programs of its names, which keep their jobs as files in a folder.

`FakeSlurm` is the tests' side. The file itself is each of the programs; it imports the standard library only.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PROGRAMS = ("sbatch", "squeue", "scancel", "scontrol", "sacct")
WAIT_FILE, REFUSE_FILE, DOWN_FILE, ACCOUNTING_FILE = "wait", "refuse", "down", "accounting"


class FakeSlurm:
    """Jobs run at once; after `let_wait`, they wait until they are cancelled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        for name in PROGRAMS:
            program = self.bin / name
            code = f"#!{sys.executable} -SE\n{Path(__file__).read_text('utf-8')}"
            program.write_text(code, encoding="utf-8")
            program.chmod(0o755)

    def let_wait(self, reason: str) -> None:
        (self.folder / WAIT_FILE).write_text(reason, encoding="utf-8")

    def refuse(self, message: str) -> None:
        (self.folder / REFUSE_FILE).write_text(message, encoding="utf-8")

    def account(self, line: str) -> None:
        """What sacct says of each job."""
        (self.folder / ACCOUNTING_FILE).write_text(line, encoding="utf-8")

    def go_down(self) -> None:
        (self.folder / DOWN_FILE).touch()

    def come_back(self) -> None:
        (self.folder / DOWN_FILE).unlink()

    def jobs(self) -> list[dict[str, Any]]:
        return read_jobs(self.folder)

    def end(self, state: str) -> None:
        """End the last job as Slurm does, in this state; "" is a job that Slurm has forgotten."""
        job = self.jobs()[-1]
        kill(job)
        path = self.folder / f"job-{job['id']}.json"
        path.unlink() if not state else path.write_text(json.dumps({**job, "state": state}), encoding="utf-8")

    def wait_for_exit(self) -> None:
        """Until the worker of the last job is gone."""
        end = time.monotonic() + 60
        while is_alive(self.jobs()[-1]["pid"]) and time.monotonic() < end:
            time.sleep(0.02)


def read_jobs(folder: Path) -> list[dict[str, Any]]:
    paths = sorted(folder.glob("job-*.json"), key=lambda path: int(path.stem[4:]))
    return [json.loads(path.read_text("utf-8")) for path in paths]


def kill(job: dict[str, Any]) -> None:
    if job["pid"] and is_alive(job["pid"]):
        os.killpg(job["pid"], signal.SIGKILL)


def is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return bool(pid) and stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


# --- The programs. ---
def main() -> int:
    program = Path(sys.argv[0])
    folder = program.parent.parent
    if (folder / DOWN_FILE).exists():
        print(f"{program.name}: error: Unable to contact slurm controller", file=sys.stderr)
        return 1
    options, names = {}, []
    for argument in sys.argv[1:]:
        if argument.startswith("--"):
            name, _, value = argument[2:].partition("=")
            options[name] = value
        else:
            names.append(argument)
    return {"sbatch": sbatch, "squeue": squeue, "scancel": scancel, "scontrol": scontrol, "sacct": sacct}[
        program.name
    ](folder, options, names)


def sbatch(folder: Path, options: dict[str, str], _names: list[str]) -> int:
    script = sys.stdin.read()
    refused = folder / REFUSE_FILE
    if refused.exists():
        print(f"sbatch: error: Batch job submission failed: {refused.read_text('utf-8')}", file=sys.stderr)
        return 1
    if "test-only" in options:
        print("sbatch: Job 1 to start at 2026-11-27T16:35:45 on nodes n1", file=sys.stderr)
        return 0
    number = len(list(folder.glob("*.job"))) + 1
    waits = folder / WAIT_FILE
    job = {"id": str(number), "name": options["job-name"], "state": "PENDING", "pid": 0}
    job |= {"options": options, "script": script, "arguments": sys.argv[1:]}
    job["reason"] = waits.read_text("utf-8") if waits.exists() else "None"
    if not waits.exists():
        job |= {"state": "RUNNING", "pid": start(script, options, number)}
    (folder / f"{number}.job").touch()
    (folder / f"job-{number}.json").write_text(json.dumps(job), encoding="utf-8")
    print(number)
    return 0


def start(script: str, options: dict[str, str], number: int) -> int:
    exported = {name: os.environ[name] for name in options["export"].split(",")}
    own = {"HOME": os.environ.get("HOME", "/"), "PATH": os.environ["PATH"], "SLURM_JOB_ID": str(number)}
    folder = Path(options["chdir"])
    with (folder / options["output"]).open("ab") as log:
        return subprocess.Popen(
            ["/bin/sh", "-c", script],
            cwd=folder,
            env=own | exported,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        ).pid


def squeue(folder: Path, options: dict[str, str], _names: list[str]) -> int:
    assert options["format"] == "%i|%T|%r|%j"
    for job in read_jobs(folder):
        state = job["state"]
        if state == "RUNNING" and not is_alive(job["pid"]):
            state = "FAILED"
        print("|".join([job["id"], state, job["reason"], job["name"]]))
    return 0


def scancel(folder: Path, options: dict[str, str], names: list[str]) -> int:
    for job in read_jobs(folder):
        if job["id"] in names and options.get("state", job["state"]) == job["state"]:
            kill(job)
            changed = {**job, "state": "CANCELLED"}
            (folder / f"job-{job['id']}.json").write_text(json.dumps(changed), encoding="utf-8")
    return 0


def scontrol(_folder: Path, _options: dict[str, str], names: list[str]) -> int:
    assert names == ["show", "config"]
    print("Configuration data as of 2026-11-27T16:20:20\nClusterName             = fake\nBOOT_TIME = now")
    return 0


def sacct(folder: Path, options: dict[str, str], _names: list[str]) -> int:
    accounting = folder / ACCOUNTING_FILE
    if not accounting.exists():
        print("Slurm accounting storage is disabled", file=sys.stderr)
        return 1
    assert options["format"] == "JobIDRaw,State" and options["name"]
    print(accounting.read_text("utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
