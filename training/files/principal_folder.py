"""Which runs of a home belong to which principal of a server: an empty file for each.

principals/<hash>/<run id>   a run that `<hash>` may see; the owner of the home may see all
"""

from __future__ import annotations

import hashlib
from pathlib import Path

PRINCIPALS = "principals"
HASH_LENGTH = 32  # characters


def principal_folder(home: Path, principal: str) -> Path:
    """The folder of a principal's runs. Hashed, since an issuer may call a subject anything."""
    return home / PRINCIPALS / hashlib.sha256(principal.encode()).hexdigest()[:HASH_LENGTH]


def forget_run(home: Path, run_id: str) -> None:
    """Remove the marks of a run that is removed."""
    for mark in (home / PRINCIPALS).glob(f"*/{run_id}"):
        mark.unlink(missing_ok=True)
