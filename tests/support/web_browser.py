"""A real Chromium that a test drives; see tests/browser/browser.mjs."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[1] / "browser"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NODE = shutil.which("node")
MISSING = not (CHROMIUM and NODE and (HERE / "node_modules" / "axe-core").is_dir())


class Browser:
    """One page of it at a time.

    Args:
        base: address that paths are added to.
    """

    def __init__(self, base: str) -> None:
        self.base = base.rstrip("/")
        command = [NODE or "", str(HERE / "browser.mjs"), CHROMIUM or ""]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE
        )
        assert self._answer() == "ready"

    def _answer(self) -> Any:
        assert self._process.stdout
        answer = json.loads(self._process.stdout.readline())
        assert "error" not in answer, answer
        return answer["result"]

    def do(self, command: str, **given: Any) -> Any:
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"command": command, **given}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def open(self, path: str, **page: Any) -> int:
        """A new page at a path; returns the HTTP status."""
        self.do("newPage", **page)
        return self.goto(path)

    def goto(self, path: str) -> int:
        return self.do("goto", url=f"{self.base}{path}")

    def run(self, expression: str) -> Any:
        return self.do("run", expression=expression)

    def text(self, selector: str = "main") -> str:
        return " ".join(self.run(f"document.querySelector({json.dumps(selector)}).innerText").split())

    def wait_for(self, expression: str, timeout_s: float = 60) -> None:
        self.do("waitFor", expression=expression, timeout=1000 * timeout_s)

    def fits(self) -> bool:
        """Whether nothing has to be scrolled sideways."""
        return self.run("document.documentElement.scrollWidth <= window.innerWidth")

    def close(self) -> None:
        self._process.communicate(timeout=30)
