"""Prints the checks of a conformance suite that failed: their scenario, and what was expected and came."""

from __future__ import annotations

import json
import sys
from pathlib import Path

UNKNOWN_TAIL = 3000


def main(results: Path, log: Path) -> None:
    found = False
    for file in sorted(results.rglob("checks.json")):
        for check in json.loads(file.read_text(encoding="utf-8")):
            if check["status"] == "FAILURE":
                found = True
                place = f"{file.parent.name}: {check['name']}"
                print(place, check.get("errorMessage"), check.get("details"), sep=": ")
    if not found:
        print(log.read_text(encoding="utf-8")[-UNKNOWN_TAIL:])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
