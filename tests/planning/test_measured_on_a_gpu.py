"""The arithmetic beside what was measured on an H100 (benchmarks/README.md): memory by part, and speed."""

from __future__ import annotations

import pytest
from model_configs import config_of

from backpropagate.training.config.fields import Recompute
from backpropagate.training.config.specs import LoraGroup
from backpropagate.training.planning.decoder_shape import decoder_shape
from backpropagate.training.planning.gpu_cards import CARDS, card_named
from backpropagate.training.planning.memory import GIB, packed_memory
from backpropagate.training.planning.speed import Work, tokens_per_s

IN_PLAIN_STEPS = LoraGroup(dropout=0.1)
"""An MLP as all were when these peaks were measured; without dropout its backward is one kernel since."""

# size, bits, recomputed, tokens and labels of the largest micro-batch, layers on the GPU, peak GiB
PEAKS: list[tuple[str, int, Recompute, int, int, int | None, float]] = [
    ("7b", 4, "everything", 4096, 2044, 2, 4.65),
    ("7b", 4, "everything", 7104, 3543, 2, 5.98),
    ("7b", 4, "everything", 7104, 3543, None, 9.57),
    ("7b", 4, "gate_up", 7104, 3543, 27, 12.82),
    ("14b", 4, "everything", 4096, 2044, 2, 6.77),
    ("32b", 4, "everything", 4096, 2043, 3, 10.46),
    ("70b", 4, "everything", 4096, 2043, 15, 22.11),
    ("7b", 16, "everything", 7104, 3543, 7, 9.76),
    ("7b", 16, "nothing", 7104, 3543, None, 35.9),
    ("7b", 4, "everything", 8192, 4100, None, 10.1),
    ("7b", 4, "everything", 8192, 4100, 0, 6.3),
    ("7b", 4, "everything", 4096, 2054, 0, 4.5),
    ("32b", 4, "everything", 4096, 2054, None, 25.5),
    ("32b", 4, "everything", 4096, 2054, 0, 9.8),
]

# size, bits, recomputed, tokens of a step, layers on the GPU, tokens per second
SPEEDS: list[tuple[str, int, Recompute, int, int | None, float]] = [
    ("7b", 4, "everything", 8192, None, 12548),
    ("7b", 4, "everything", 8192, 0, 12516),
    ("7b", 4, "everything", 4096, 0, 11735),
    ("32b", 4, "everything", 4096, None, 2828),
    ("32b", 4, "everything", 4096, 0, 2813),
    ("7b", 4, "nothing", 4026, None, 15735),
    ("7b", 4, "everything", 3500, 2, 10605),
    ("7b", 4, "everything", 4026, 2, 11254),
    ("7b", 4, "everything", 4026, None, 11433),
    ("7b", 4, "gate_up", 4026, 27, 13151),
    ("14b", 4, "everything", 3500, 2, 5284),
    ("32b", 4, "everything", 3500, 3, 2553),
    ("70b", 4, "everything", 3500, 15, 1265),
    ("7b", 16, "everything", 4026, 7, 9326),
    ("7b", 16, "nothing", 4026, None, 17024),
]


@pytest.mark.parametrize("measured", PEAKS)
def test_a_peak_is_not_below_the_measured_one_and_hardly_above(
    measured: tuple[str, int, Recompute, int, int, int | None, float],
) -> None:
    size, bits, recompute, tokens, labels, resident, peak = measured
    memory = packed_memory(decoder_shape(config_of(size)), IN_PLAIN_STEPS, in_4bit=bits == 4)
    planned = memory.peak(resident, recompute, tokens, labels) / GIB
    assert 0.97 * peak <= planned <= 1.1 * peak
    parts = memory.parts(resident, recompute, tokens, labels)
    assert sum(parts.values()) == memory.peak(resident, recompute, tokens, labels)


@pytest.mark.parametrize("measured", SPEEDS)
def test_a_speed_is_within_a_quarter_of_the_measured_one(
    measured: tuple[str, int, Recompute, int, int | None, float],
) -> None:
    size, bits, recompute, tokens, resident, speed = measured
    shape = decoder_shape(config_of(size))
    stored = packed_memory(shape, LoraGroup(), in_4bit=bits == 4).layer
    work = Work(shape, "packed", bits == 4, recompute, resident, tokens, None, 0.5, stored)
    assert tokens_per_s(work, CARDS["h100"]) == pytest.approx(speed, rel=0.25)


def test_a_card_is_known_by_what_its_driver_calls_it() -> None:
    assert card_named("NVIDIA H100 80GB HBM3") == CARDS["h100"]
    assert card_named("NVIDIA H100 PCIe") == CARDS["h100 pcie"]
    assert card_named("NVIDIA GeForce RTX 4070 Ti") == CARDS["rtx 4070 ti"]
    assert card_named("NVIDIA GeForce RTX 3060") == CARDS["rtx 3060"]
    assert card_named("NVIDIA A100-SXM4-80GB") == CARDS["a100"]
    assert card_named("Some other card") is None
