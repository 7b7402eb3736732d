"""How others reach a page that only this machine can: through a tunnel of a tool that the user has."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager, suppress

from ..training.errors import MissingExtraError

TOOLS = ("cloudflared", "ngrok", "ssh")
END_S = 5.0


def command_of(tool: str, port: int) -> list[str]:
    """What opens a tunnel to the page."""
    match tool:
        case "cloudflared":
            return ["cloudflared", "tunnel", "--url", f"http://127.0.0.1:{port}"]
        case "ngrok":
            return ["ngrok", "http", str(port)]
        case _:
            return ["ssh", "-R", f"80:127.0.0.1:{port}", "nokey@localhost.run"]


def explanation(port: int) -> str:
    """How to open a tunnel, with what is here first."""
    here = [tool for tool in TOOLS if shutil.which(tool)]
    listed = "\n".join(f"  {' '.join(command_of(tool, port))}" for tool in here or TOOLS)
    found = "One of these opens a tunnel" if here else "None of these tools is installed; each opens a tunnel"
    return f"{found}; --tunnel NAME starts it with the page:\n{listed}\nThe tool prints the address to share."


def require_tool(tool: str) -> None:
    """Raises MissingExtraError if it is not installed."""
    if shutil.which(tool) is None:
        raise MissingExtraError(f"{tool} is not installed.", hint="Install it, or give --share alone.")


@contextmanager
def tunnel(tool: str | None, port: int) -> Generator[None]:
    """The tool while the page is served; it prints to this terminal, and ends with the page."""
    if tool is None:
        yield
        return
    process = subprocess.Popen(command_of(tool, port), stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_S)
        if process.poll() is None:
            process.kill()
