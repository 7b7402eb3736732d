"""`backprop doctor`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import click

from ...training.events import never_stop
from ...training.files.background_call import background_call
from ...training.redact import scrub, scrub_all
from ..runs import as_json_option
from ..wrapped import say, say_json
from .clients import client_findings
from .clusters import cluster_findings
from .finding import Finding
from .installation import python_findings, torch_findings
from .machine import disk_findings, gpu_findings, home_findings, settings_findings
from .services import hub_findings, llama_cpp_findings, ollama_findings

CHECKS: tuple[tuple[str, Callable[[], Iterator[Finding]], float], ...] = (
    ("Python", python_findings, 10),
    ("torch", torch_findings, 45),
    ("GPU", gpu_findings, 15),
    ("disk", disk_findings, 10),
    ("home", home_findings, 20),
    ("settings", settings_findings, 10),
    ("Hub", hub_findings, 8),
    ("Ollama", ollama_findings, 8),
    ("llama.cpp", llama_cpp_findings, 10),
    ("clusters", cluster_findings, 45),
    ("client", client_findings, 60),
)
"""Area, check, and the seconds that it may take; all of them run at once."""

SIGNS = {"ok": "ok", "note": "note", "problem": "PROBLEM"}


@click.command("doctor")
@as_json_option
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Look at Python, torch, GPU, disk, home folder, Hub, Ollama, llama.cpp, clusters, MCP clients.

    Each problem comes with its repair. Exit code 1 if there is a problem.
    """
    with ThreadPoolExecutor(len(CHECKS)) as pool:
        found = [finding for findings in pool.map(_checked, CHECKS) for finding in findings]
    problems = [finding for finding in found if finding.level == "problem"]
    if as_json:
        records = [finding._asdict() for finding in found]
        say_json(json.dumps(scrub_all({"problems": len(problems), "findings": records}), indent=1))
    else:
        for finding in found:
            _print(finding)
        say(f"{len(problems)} problem(s)." if problems else "No problems.")
    ctx.exit(1 if problems else 0)


def _checked(check: tuple[str, Callable[[], Iterator[Finding]], float]) -> list[Finding]:
    """The findings of a check; one that hangs or fails is a finding itself."""
    area, look, seconds = check

    def findings() -> list[Finding]:
        return [*look()]

    try:
        return background_call(findings, never_stop, seconds=seconds)
    except TimeoutError:
        return [Finding(area, "problem", f"The check took longer than {seconds:g} s.", "Look at it by hand.")]
    except Exception as error:
        return [
            Finding(
                area, "problem", f"The check failed: {type(error).__name__}: {error}", "Please report it."
            )
        ]


def _print(finding: Finding) -> None:
    say(f"{SIGNS[finding.level]:<8} {finding.area:<10} {scrub(finding.message)}", 20)
    if finding.repair:
        say(f"{'':<19} → {scrub(finding.repair)}", 22)
