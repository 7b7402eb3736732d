"""The extras that users install: documented, without duplicates, and older names with them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from backpropagate import Trainer
from backpropagate.training.errors import MissingExtraError
from backpropagate.training.trackers.choice import INSTALLED_BY

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
PAGE = (ROOT / "docs" / "extras.md").read_text(encoding="utf-8")
OLDER = [
    "train",
    "quantized",
    "export",
    "unsloth",
    "monitoring",
    "observability",
    "logging",
    "security",
    "ui",
    "validation",
    "production",
    "standard",
    "full",
]


def test_every_extra_is_documented_and_an_empty_one_says_why() -> None:
    full, _, empty = PAGE.partition("add nothing")
    assert set(OLDER) <= set(EXTRAS)
    for name, needs in EXTRAS.items():
        assert f"`{name}`" in (full if needs else empty), name


def test_an_extra_made_of_others_says_which() -> None:
    for name in ("standard", "production", "full"):
        (needs,) = EXTRAS[name]
        parts = re.findall(r"\w+", needs.partition("[")[2])
        (row,) = (line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |"))
        assert set(parts) <= set(EXTRAS) and all(f"`{part}`" in row for part in parts)


def test_the_hint_for_a_tracker_names_an_extra_that_has_it() -> None:
    for name, hint in INSTALLED_BY.items():
        extra = hint.partition("[")[2].partition("]")[0]
        assert any(need.startswith(name) for need in EXTRAS[extra])


def test_the_older_script_name_is_installed_too() -> None:
    assert PROJECT["scripts"]["backpropagate"] == PROJECT["scripts"]["backprop"]


def test_without_llama_cpp_the_third_line_says_in_one_line_what_to_do(
    home: Path, dataset: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backpropagate.training.config.quantizations.find_spec", lambda name: None)
    trainer = Trainer(str(tiny_model), threads=1, held_out=0)
    trainer.train(dataset, steps=1)
    with pytest.raises(MissingExtraError) as refused:
        trainer.export("gguf", quantization="q4_k_m")
    said = f"[{refused.value.code}] {refused.value} — {refused.value.hint}"
    assert said in PAGE and "\n" not in said
    assert trainer.export("gguf").quantization == "q8_0"
