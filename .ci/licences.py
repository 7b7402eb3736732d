"""Check that every installed distribution has a licence that this project may be used with.

Only what is known is accepted. A licence of another name fails with its distribution: read it, then
add its name here, or do without the distribution.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions

KNOWN = {
    name.casefold()
    for name in (
        "0BSD",
        "3-Clause BSD License",
        "Apache",
        "Apache 2.0",
        "Apache 2.0 License",
        "Apache Software License",
        "Apache-2.0",
        "Apache-2.0 WITH LLVM-exception",
        "BSD",
        "BSD 2-Clause License",
        "BSD License",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BSL-1.0",
        "CC0-1.0",
        "CNRI-Python",
        "ISC License",
        "ISC License (ISCL)",
        "MIT",
        "MIT License",
        "MIT-0",
        "MIT-CMU",
        "MPL-2.0",  # for each file; nothing of it is copied or changed here
        "Mozilla Public License 2.0 (MPL 2.0)",
        "PSF-2.0",
        "Python Software Foundation License",
        "Zlib",
    )
}
READ = {
    "fastokens": "Apache-2.0, in its repository; the wheel names none",
}
"""Distributions whose metadata names no licence, and where a person has read it."""

OF_CUDA = ("nvidia-", "cuda-")
"""NVIDIA's libraries, which torch's builds for CUDA bring: to be used, and not part of this project."""


def licences(distribution: Distribution) -> list[str]:
    """The names in its metadata: of the newest kind that there is."""
    metadata = distribution.metadata
    if expression := metadata.get("License-Expression"):
        return [part.strip("() ") for part in re.split(r" (?:AND|OR) ", expression)]
    classifiers = metadata.get_all("Classifier") or []
    named = [each.rpartition(" :: ")[2] for each in classifiers if each.startswith("License :: ")]
    text = (metadata.get("License") or "").strip().split("\n")[0]
    return named or [part.strip() for part in re.split(r" (?:AND|OR) ", text) if part.strip()]


def problems() -> Iterator[str]:
    for distribution in sorted(distributions(), key=lambda each: each.name.casefold()):
        name = distribution.name
        if name in READ or name.casefold().startswith(OF_CUDA):
            continue
        found = licences(distribution)
        unknown = [licence for licence in found if licence.casefold() not in KNOWN]
        if not found:
            yield f"{name} {distribution.version} names no licence."
        elif unknown:
            yield f"{name} {distribution.version}: {', '.join(unknown)} is not among the known licences."


if __name__ == "__main__":
    found = list(problems())
    print("\n".join(found) or "All installed distributions have a known licence.")
    sys.exit(bool(found))
