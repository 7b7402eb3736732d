"""Which names Ollama takes, and which of them are one; and what its versions are."""

from __future__ import annotations

import pytest

from backpropagate.training.config.ollama_names import model_name
from backpropagate.training.errors import OllamaError
from backpropagate.training.export.ollama.create_request import release


@pytest.mark.parametrize(
    "name",
    ["a", "my-model", "My_Model.v2", "me/my-model:8b-q4_K_M", "host.example:5000/me/m:1", "_m", "m" * 80],
)
def test_ollamas_names_are_taken(name: str) -> None:
    assert str(model_name(name)) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "-m",
        ".m",
        "my model",
        "m:",
        ":m",
        "m:a:b",
        "/m",
        "m/",
        "a.b/m",
        "../m",
        "m" * 81,
        "mödel",
        "m\n",
    ],
)
def test_other_names_are_refused_with_an_example(name: str) -> None:
    with pytest.raises(OllamaError, match="not a valid Ollama model name") as refused:
        model_name(name)
    assert refused.value.hint and "my-model" in refused.value.hint


@pytest.mark.parametrize(
    "other", ["mine", "MINE:latest", "library/Mine", "registry.ollama.ai/library/mine:latest"]
)
def test_names_of_one_model_are_one_whatever_their_case_and_defaults(other: str) -> None:
    assert model_name("Mine").is_among(["something", other])
    assert not model_name("mine:v2").is_among([other])


@pytest.mark.parametrize(
    ("version", "numbers"),
    [
        ("0.5.4", (0, 5, 4)),
        ("0.30", (0, 30, 0)),
        ("v0.12.6-rc1", (0, 12, 6)),
        ("0.0.0", (10**6,)),
        ("nightly", (10**6,)),
    ],
)
def test_a_version_that_is_no_release_counts_as_the_newest(version: str, numbers: tuple[int, ...]) -> None:
    assert release(version) == numbers
