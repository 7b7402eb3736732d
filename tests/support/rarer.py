"""Cases of a test that only the slow stage runs: the default one has the first of their kind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def rarer(*values: Any, **options: Any) -> Any:
    """A case of the slow stage; arguments as of `pytest.param`."""
    return pytest.param(*values, marks=pytest.mark.slow, **options)


def with_rarer(common: Iterable[Any], others: Iterable[Any]) -> list[Any]:
    """Cases of one value each: the common ones always run, the others in the slow stage."""
    return [*common, *map(rarer, others)]
