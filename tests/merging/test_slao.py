"""The algebra of SLAO holds for all weights, and the merger refuses what it cannot merge."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from backpropagate import (
    SLAOConfig,
    SLAOMerger,
    merge_lora_weights,
    orthogonal_init_A,
    time_aware_scale,
)
from backpropagate.training.errors import SLAOCheckpointError, SLAOError, SLAOMergeError

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
MODULES = ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj")
ROUNDING = {torch.float32: 2**-22, torch.bfloat16: 2**-7, torch.float16: 2**-9, torch.float64: 1e-15}
SHAPES = st.tuples(st.integers(1, 8), st.integers(8, 40), st.integers(1, 40))
"""r, in_features, out_features."""


def adapter(
    seed: int, shape: tuple[int, int, int] = (4, 24, 16), dtype: Any = torch.float32
) -> dict[str, Tensor]:
    rank, wide, high = shape
    made = torch.Generator().manual_seed(seed)
    return {
        f"base_model.model.{module}.lora_{side}.weight": torch.randn(size, generator=made).to(dtype)
        for module in MODULES
        for side, size in (("A", (rank, wide)), ("B", (high, rank)))
    }


def of(weights: dict[str, Tensor], side: str) -> list[Tensor]:
    return [tensor for name, tensor in weights.items() if f"lora_{side}" in name]


def chain(tasks: list[dict[str, Tensor]], **config: Any) -> SLAOMerger:
    merger = SLAOMerger(SLAOConfig(**config))
    merger.initialize(tasks[0])
    for task in tasks[1:]:
        merger.merge(task)
    return merger


@pytest.mark.parametrize("dtype", FLOATS)
@settings(max_examples=25)
@given(shape=SHAPES, seed=st.integers(0, 99))
def test_the_next_task_starts_from_an_a_with_orthonormal_rows_in_the_same_space(
    dtype: Any, shape: tuple[int, int, int], seed: int
) -> None:
    a = of(adapter(seed, shape, dtype), "A")[0]
    start = orthogonal_init_A(a)
    assert start.shape == a.shape and start.dtype == dtype
    exact, given_rows = start.double(), a.double()
    near = 40 * ROUNDING[dtype]
    torch.testing.assert_close(exact @ exact.T, torch.eye(shape[0], dtype=torch.float64), atol=near, rtol=0)
    # Each row of A is a sum of the new rows.
    torch.testing.assert_close(given_rows @ exact.T @ exact, given_rows, atol=40 * near, rtol=near)


@settings(max_examples=25)
@given(shape=SHAPES, seed=st.integers(0, 99), data=st.data())
def test_the_start_does_not_depend_on_the_sign_convention_of_a_qr(
    shape: tuple[int, int, int], seed: int, data: Any
) -> None:
    a = of(adapter(seed, shape, torch.float64), "A")[0]
    q, r = torch.linalg.qr(a.T)
    flips = torch.tensor(
        data.draw(st.lists(st.sampled_from([-1.0, 1.0]), min_size=shape[0], max_size=shape[0]))
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch.linalg, "qr", lambda matrix, mode: (q * flips, flips[:, None] * r))
        other = orthogonal_init_A(a)
    torch.testing.assert_close(other, orthogonal_init_A(a))


def test_an_a_that_is_zero_still_gives_orthonormal_rows() -> None:
    start = orthogonal_init_A(torch.zeros(4, 9))
    torch.testing.assert_close(start @ start.T, torch.eye(4))


@pytest.mark.parametrize(("index", "sqrt", "mean"), [(1, 1.0, 1.0), (4, 0.5, 0.25), (400, 0.05, 0.0025)])
def test_the_share_of_a_task_shrinks_with_its_number_and_is_never_clamped(
    index: int, sqrt: float, mean: float
) -> None:
    assert time_aware_scale(index) == sqrt and time_aware_scale(index, "mean") == mean
    with pytest.raises(SLAOError):
        time_aware_scale(0)


@pytest.mark.parametrize("dtype", FLOATS)
@settings(max_examples=20)
@given(shape=SHAPES, seeds=st.lists(st.integers(0, 99), min_size=1, max_size=5))
def test_a_chain_of_merges_equals_a_float64_reference(
    dtype: Any, shape: tuple[int, int, int], seeds: list[int]
) -> None:
    tasks = [adapter(seed, shape, dtype) for seed in seeds]
    merged = chain(tasks).get_merged_lora()
    expected = [b.double() for b in of(tasks[0], "B")]
    for number, task in enumerate(tasks[1:], start=2):
        share = 1 / math.sqrt(number)
        expected = [old + share * (b.double() - old) for old, b in zip(expected, of(task, "B"), strict=True)]
    for b, wanted in zip(of(merged, "B"), expected, strict=True):
        torch.testing.assert_close(b.double(), wanted, atol=20 * ROUNDING[dtype], rtol=20 * ROUNDING[dtype])
    assert all(torch.equal(a, last) for a, last in zip(of(merged, "A"), of(tasks[-1], "A"), strict=True))


def test_with_mean_the_merged_b_is_the_mean_of_all() -> None:
    tasks = [adapter(seed) for seed in range(5)]
    merged = chain(tasks, scaling="mean").get_merged_lora()
    for place, b in enumerate(of(merged, "B")):
        torch.testing.assert_close(b, torch.stack([of(task, "B")[place] for task in tasks]).mean(0))


def test_the_next_b_starts_from_the_last_fine_tuned_one_and_not_from_the_merged_one() -> None:
    tasks = [adapter(1), adapter(2)]
    merger = chain(tasks)
    start = merger.get_init_weights()
    assert all(torch.equal(b, tuned) for b, tuned in zip(of(start, "B"), of(tasks[1], "B"), strict=True))
    assert not any(
        torch.equal(b, m) for b, m in zip(of(start, "B"), of(merger.get_merged_lora(), "B"), strict=True)
    )
    assert start.keys() == tasks[1].keys()


def test_a_merger_keeps_copies() -> None:
    weights = adapter(1)
    merger = chain([weights])
    for tensor in (
        *weights.values(),
        *merger.get_merged_lora().values(),
        *merger.get_init_weights().values(),
    ):
        tensor.zero_()
    assert all(tensor.abs().sum() > 0 for tensor in merger.get_merged_lora().values())


def test_a_saved_merger_continues_bit_for_bit(tmp_path: Path) -> None:
    tasks = [adapter(seed, dtype=torch.bfloat16) for seed in range(4)]
    whole, part = chain(tasks), chain(tasks[:2])
    part.save(tmp_path / "merger")
    loaded = SLAOMerger.load(tmp_path / "merger")
    for task in tasks[2:]:
        loaded.merge(task)
    assert loaded.merge_history == whole.merge_history and loaded.run_index == 4
    for name, tensor in whole.get_merged_lora().items():
        assert torch.equal(tensor, loaded.get_merged_lora()[name])


@pytest.mark.parametrize("name", ["merged.safetensors", "tuned.safetensors", "merger.json"])
@pytest.mark.parametrize("damage", ["missing", "cut", "changed"])
def test_a_damaged_state_is_refused(tmp_path: Path, name: str, damage: str) -> None:
    chain([adapter(1), adapter(2)]).save(tmp_path / "merger")
    file = tmp_path / "merger" / name
    content = bytearray(file.read_bytes())
    if damage == "missing":
        file.unlink()
    else:
        content[len(content) // 2] ^= 1
        file.write_bytes(content[:-40] if damage == "cut" else content)
    if name == "merger.json" and damage == "changed":  # any bit of it may be one that does not matter
        file.write_text(file.read_text(encoding="utf-8", errors="replace").replace("run_index", "index"))
    with pytest.raises(SLAOCheckpointError) as error:
        SLAOMerger.load(tmp_path / "merger")
    assert error.value.code == "STATE_SLAO_CHECKPOINT_INVALID"


def without(weights: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights.items() if part not in name}


def changed(weights: dict[str, Tensor], part: str, tensor: Tensor) -> dict[str, Tensor]:
    return {name: tensor if part in name else old for name, old in weights.items()}


GOOD = adapter(5)
OTHER = {
    "base_model.model.x.lora_A.weight": torch.ones(4, 8),
    "base_model.model.x.lora_B.weight": torch.ones(8, 4),
}
LAST_IS_NAN = torch.ones(16, 4)
LAST_IS_NAN[-1, -1] = math.nan
BAD: dict[str, dict[str, Tensor]] = {
    "no weights": {},
    "a lost module": without(GOOD, "layers.1"),
    "a lost B": without(GOOD, "layers.1.mlp.down_proj.lora_B"),
    "a lost A": without(GOOD, "layers.1.mlp.down_proj.lora_A"),
    "another module": GOOD | OTHER,
    "a bias": GOOD | {"base_model.model.x.bias": torch.ones(4)},
    "a magnitude": GOOD | {"base_model.model.x.lora_magnitude_vector.weight": torch.ones(4)},
    "another rank": adapter(5, (8, 24, 16)),
    "a B that could be broadcast": changed(GOOD, "layers.1.mlp.down_proj.lora_B", torch.ones(1, 4)),
    "another type": adapter(5, dtype=torch.bfloat16),
    "integers": changed(GOOD, "layers.1.mlp.down_proj.lora_B", torch.ones(16, 4, dtype=torch.int32)),
    "NaN in the last place": changed(GOOD, "layers.1.mlp.down_proj.lora_B", LAST_IS_NAN),
    "an infinite value": changed(GOOD, "layers.0.self_attn.q_proj.lora_A", torch.full((4, 24), -math.inf)),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_merged_is_refused_and_changes_nothing(name: str) -> None:
    merger = chain([adapter(1), adapter(2)])
    before = merger.get_merged_lora()
    with pytest.raises(SLAOMergeError) as error:
        merger.merge(BAD[name])
    assert error.value.code == "RUNTIME_SLAO_MERGE_FAILED" and merger.run_index == 2
    assert all(torch.equal(tensor, before[key]) for key, tensor in merger.get_merged_lora().items())


@pytest.mark.parametrize(
    "name", ["no weights", "a lost B", "a lost A", "a bias", "integers", "an infinite value"]
)
def test_a_first_task_that_is_no_plain_lora_is_refused(name: str) -> None:
    merger = SLAOMerger()
    with pytest.raises(SLAOMergeError):
        merger.initialize(BAD[name])
    assert merger.run_index == 0


@pytest.mark.parametrize(
    "entry", [{"lora_alpha": 64}, {"r": 4}, {"use_rslora": True}, {"target_modules": ["v_proj"]}]
)
def test_adapters_of_another_scale_or_target_are_refused(entry: dict[str, Any]) -> None:
    config = {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "k_proj"], "lora_dropout": 0.1}
    merger = SLAOMerger()
    merger.initialize(adapter(1), config)
    merger.merge(adapter(2), config | {"target_modules": ["k_proj", "q_proj"], "lora_dropout": 0.0})
    with pytest.raises(SLAOMergeError, match=next(iter(entry))):
        merger.merge(adapter(3), config | entry)


@pytest.mark.parametrize("scale", [-0.1, 1.1, math.nan])
def test_a_share_out_of_bounds_is_refused(scale: float) -> None:
    with pytest.raises(SLAOMergeError, match="0 to 1"):
        merge_lora_weights(adapter(1), adapter(2), scale)


def test_a_merger_without_a_task_says_so_and_one_with_a_task_is_not_begun_again(tmp_path: Path) -> None:
    merger = SLAOMerger()
    acts: list[Callable[[], object]] = [
        *(merger.get_merged_lora, merger.get_tuned_lora, merger.get_init_weights),
        *(lambda: merger.merge(adapter(1)), lambda: merger.save(tmp_path / "m")),
    ]
    for act in acts:
        with pytest.raises(SLAOError, match="no task yet"):
            act()
    merger.initialize(adapter(1))
    with pytest.raises(SLAOError, match="already"):
        merger.initialize(adapter(1))
