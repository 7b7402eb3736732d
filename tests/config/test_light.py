"""Importing the settings and specs costs nothing but pydantic."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
before = set(sys.modules)
import pydantic
allowed = {name.partition(".")[0] for name in sys.modules} | {"annotated_types", "typing_inspection"}
import backpropagate.training.config
from backpropagate.training.config import arguments, fields, quantizations, results, specs
tops = {name.partition(".")[0] for name in set(sys.modules) - before}
left = tops - allowed - set(sys.stdlib_module_names) - {"backpropagate"}
print(sorted(name for name in left if not name.startswith("_sysconfigdata")))
"""


def test_the_config_imports_pydantic_and_the_standard_library_only() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
