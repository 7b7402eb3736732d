"""The check of licences in CI."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "licences.py"


@pytest.mark.parametrize(
    ("licence", "said"),
    [
        ("License-Expression: MIT AND BSD-3-Clause", None),
        ("License-Expression: MIT AND AGPL-3.0-only", "AGPL-3.0-only is not among"),
        ("License: Apache-2.0", None),
        ("License: Proprietary", "Proprietary is not among"),
        ("Classifier: License :: OSI Approved :: MIT License", None),
        ("Summary: none", "names no licence"),
    ],
)
def test_a_distribution_with_another_licence_than_the_known_ones_fails(
    licence: str, said: str | None, tmp_path: Path
) -> None:
    folder = tmp_path / "stranger-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: stranger\nVersion: 1.0\n{licence}\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, SCRIPT], env=environment, capture_output=True, text=True)
    assert (done.returncode == 0) is (said is None), done.stdout
    assert f"stranger 1.0{'' if 'names' in (said or '') else ':'} {said}" in done.stdout if said else True
