"""Loads a plan's model in all ranks at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypeVar

from .loop.step import TrainingStep
from .out_of_memory import first_line, ran_out_of_memory
from .parallel.orders import Order
from .parallel.ranks import Ranks
from .plan import Plan

Step = TypeVar("Step", bound=TrainingStep)


def load_together(plan: Plan, load: Callable[[Plan, Ranks], Step], ranks: Ranks) -> Step:
    """The step of a plan; the other ranks load theirs meanwhile.

    Raises:
        MemoryError: it does not fit into the memory of another rank.
        RunInterruptedError: another rank is gone.
    """
    if ranks.size == 1:
        return load(plan, ranks)
    ranks.say(Order.LOAD, text=json.dumps(plan.record()))
    return loaded_in_all(lambda: load(plan, ranks), ranks)


def loaded_in_all(load: Callable[[], Step], ranks: Ranks) -> Step:
    """The step, if memory suffices in every rank; else each gives its own up.

    Raises:
        MemoryError: it does not.
    """
    loaded = _loaded(load)
    short = [
        rank
        for rank, (ran_out,) in enumerate(ranks.exchange(isinstance(loaded, str)))
        if ran_out and rank != ranks.rank
    ]
    if isinstance(loaded, str):
        raise MemoryError(loaded)
    if short:
        raise MemoryError(f"Rank {short[0]} of {ranks.size} ran out of memory")
    return loaded


def _loaded(load: Callable[[], Step]) -> Step | str:
    """The step, or what was said when memory ran out."""
    try:
        return load()
    except (RuntimeError, MemoryError) as error:
        if not ran_out_of_memory(error):
            raise
        return first_line(error)
