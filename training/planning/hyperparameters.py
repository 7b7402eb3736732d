"""Learning rate and passes over the data, where the user gives none: the rule, and its source.

    rate   = 2e-4 · (4096 / hidden_size)^0.78, half as much again below 200 steps, at most 1e-3
    epochs = 3, or as many as make 60 steps, at most 20

Adam moves a weight by about the rate at each step, whatever the gradient: a narrow model needs larger steps
to change what its layers compute, and a short run larger ones than a long one. That the best rate of a LoRA
falls with the width by such a power, and is higher for short runs, is what Schulman and Thinking Machines Lab
observe in "LoRA Without Regret" (2025); the exponent is their cookbook's for Llama. The rate at width 4096 is
the usual one for a LoRA of a 7B. All of it is for alpha / r = 2, the default.

Measured at the narrow end, with SmolLM2-135M (width 576) on 60 rows: 45 steps at 2e-4 end at a loss of 0.80
and no right answer, at 1e-3 at 0.009 and all right (benchmarks/README.md). Larger models were not measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

RATE, WIDTH, EXPONENT = 2e-4, 4096, 0.78
SHORT_RUN, SHORT_RUN_FACTOR = 200, 1.5
HIGHEST_RATE = 1e-3

EPOCHS, MOST_EPOCHS = 3, 20
ENOUGH_STEPS = 60


def hidden_size(config: Mapping[str, Any]) -> int:
    """The width of a model, from its config.json; `WIDTH` where it is not told."""
    sources: tuple[Mapping[str, Any], ...] = (config, config.get("text_config") or {})
    found = (source.get(name) for source in sources for name in ("hidden_size", "n_embd", "d_model"))
    return next((width for width in found if width), WIDTH)


def choose_epochs(steps_per_epoch: int) -> tuple[float, str]:
    """Passes over the training rows, and why."""
    wanted = math.ceil(ENOUGH_STEPS / steps_per_epoch)
    epochs = min(MOST_EPOCHS, max(EPOCHS, wanted))
    if epochs == EPOCHS:
        return float(EPOCHS), f"{EPOCHS} passes are {EPOCHS * steps_per_epoch} steps"
    return float(epochs), f"few rows: {epochs} passes are {epochs * steps_per_epoch} steps"


def choose_learning_rate(width: int, steps: int) -> tuple[float, str]:
    """The peak rate of AdamW to two digits, and why.

    Args:
        width: the model's hidden size.
        steps: of the whole run.
    """
    rate = RATE * (WIDTH / width) ** EXPONENT * (SHORT_RUN_FACTOR if steps < SHORT_RUN else 1.0)
    length = "a short" if steps < SHORT_RUN else "a long"
    return float(
        f"{min(HIGHEST_RATE, rate):.1e}"
    ), f"for hidden size {width} and {length} run of {steps} steps"
