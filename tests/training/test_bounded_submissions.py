"""A request with huge or hostile files is refused at once, and a cancelled one stops working."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import anyio
import pytest
from waiting import small_spec

from backpropagate.training.data.local_source import HASHED_BYTES
from backpropagate.training.errors import BackpropagateError
from backpropagate.training.files.atomic_json import JSON_BYTES
from backpropagate.training.models.presets import classify_model
from backpropagate.training.service import TrainingService

pytestmark = pytest.mark.anyio

HUGE = 1 << 40


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "config.json"]
)
async def test_a_model_with_a_huge_file_that_is_read_whole_is_refused_before_it_is_read(
    service: TrainingService, dataset: Path, tiny_model: Path, tmp_path: Path, name: str
) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    os.truncate(model / name, JSON_BYTES + 1)
    with pytest.raises(BackpropagateError, match=rf"{name} has [\d,]+ bytes; the limit is"):
        await service.submit(small_spec(dataset, model))
    assert not list(service.store.newest())


def test_a_huge_index_of_weights_is_not_parsed(tiny_model: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (model / "model.safetensors.index.json").write_text('{"weight_map": {}}')
    os.truncate(model / "model.safetensors.index.json", JSON_BYTES + 1)
    with pytest.raises(BackpropagateError, match=r"lacks a readable model\.safetensors\.index\.json"):
        classify_model(str(model))


@pytest.mark.skipif(os.name == "nt", reason="such a file would take its size on the disk")
async def test_a_cancelled_request_stops_reading_its_dataset(
    service: TrainingService, tiny_model: Path, tmp_path: Path
) -> None:
    """The file has no blocks, and takes a second to hash."""
    (tmp_path / "huge.jsonl").touch()
    os.truncate(tmp_path / "huge.jsonl", HASHED_BYTES)
    with anyio.move_on_after(0.2) as call:
        await service.submit(small_spec(tmp_path / "huge.jsonl", tiny_model))
    assert call.cancelled_caught
    assert not list(service.store.newest())


@pytest.mark.skipif(os.name == "nt", reason="such a file would take its size on the disk")
async def test_a_dataset_of_a_terabyte_is_not_read_before_the_request_is_answered(
    service: TrainingService, tiny_model: Path, tmp_path: Path
) -> None:
    """It would take an hour. Its size and time tell whether an equal request means the same data."""
    huge = tmp_path / "huge.jsonl"
    huge.touch()
    os.truncate(huge, HUGE)
    spec = small_spec(huge, tiny_model)
    first = await service.submit(spec, find_equal=True)
    assert (await service.submit(spec, find_equal=True)).run_id == first.run_id
    os.utime(huge, (1, 1))
    changed = await service.submit(spec, find_equal=True)
    assert changed.run_id != first.run_id
    for run_id in (first.run_id, changed.run_id):
        await service.cancel(run_id)
