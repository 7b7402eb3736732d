"""The web page of a home with many runs: how soon a browser shows it, and how soon a step is on it.

python benchmarks/web_page.py [--runs 1000] [--loads 20]

Needs Chromium and Node, and `npm install --ignore-scripts` in tests/browser.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from many_runs import make_runs

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))
from moving_run import MovingRun
from web_browser import Browser

from backpropagate.training.config.settings import Settings
from backpropagate.training.service import TrainingService

PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"
STEPS = 40


def served(home: Path) -> tuple[subprocess.Popen[str], str]:
    """The page in a process of its own, and its address."""
    environment = {
        **os.environ,
        "BACKPROPAGATE_HOME": str(home),
        "BACKPROPAGATE_RUNTIME_DIR": f"{home}-locks",
    }
    command = [sys.executable, "-m", "backpropagate", "ui", "--port", "0"]
    began = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr
    url = process.stderr.readline().split()[-1]
    print(f"command to address: {time.perf_counter() - began:.2f} s")
    return process, url


def first_paints(browser: Browser, path: str, loads: int, *, fresh: bool) -> list[float]:
    """Milliseconds from the navigation to the first content.

    Args:
        fresh: in a new browser session each time, whose process has to start and which has nothing cached.
    """
    spent: list[float] = []
    browser.open("/models")
    for _ in range(loads):
        (browser.open if fresh else browser.goto)(path)
        browser.wait_for(f"({PAINTED}) !== null")
        spent.append(browser.run(PAINTED))
        time.sleep(0.3)  # within the limit of requests
    return sorted(spent)


def step_delays(browser: Browser, home: Path) -> list[float]:
    """Milliseconds from a step that is written until the page has it."""
    run = MovingRun(TrainingService(Settings(home=home)), home / "rows.jsonl", home / "model")
    browser.open(f"/runs/{run.run_id}")
    browser.run("window.seen = {}; setInterval(() => { seen[curve.steps.at(-1)] ??= Date.now() }, 5); 0")
    written: dict[int, float] = {}
    for step in range(1, STEPS + 1):
        run.step(step, 2 / step)
        written[step] = time.time() * 1000
        time.sleep(0.35)
    browser.wait_for(f"seen[{STEPS}]")
    seen = {int(step): at for step, at in browser.run("seen").items() if step != "undefined"}
    run.end()
    missed = sorted(written.keys() - seen.keys())
    if missed:
        raise SystemExit(f"The page never showed the steps {missed}.")
    return sorted(seen[step] - at for step, at in written.items())


def tell(name: str, spent: list[float]) -> None:
    middle, late = spent[len(spent) // 2], spent[int(len(spent) * 0.95)]
    print(f"{name}: p50 {middle:.0f} ms, p95 {late:.0f} ms, most {spent[-1]:.0f} ms (n = {len(spent)})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--loads", type=int, default=20)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        make_runs(home, given.runs)
        process, url = served(home)
        browser = Browser(url)
        try:
            for path in ("/runs", "/train"):
                for name, fresh in (("a browser that runs", False), ("a new session", True)):
                    paints = first_paints(browser, path, given.loads, fresh=fresh)
                    tell(f"first content of {path} in {name}", paints)
            tell("step to page", step_delays(browser, home))
        finally:
            browser.close()
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
