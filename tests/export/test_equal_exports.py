"""An export that is asked for again, since its answer was lost, is the same run; a used output is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_lora import build_base

from backpropagate.training.errors import InputError
from backpropagate.training.files.paths import PathPolicy
from backpropagate.training.requests.export import export_spec
from backpropagate.training.requests.sources import gguf_source
from backpropagate.training.runs.folder import Status
from backpropagate.training.service import TrainingService

pytestmark = pytest.mark.anyio


@pytest.mark.slow
async def test_the_same_request_finds_the_run_that_wrote_its_output(
    service: TrainingService, tiny_model: Path, tmp_path: Path
) -> None:
    base, paths = build_base(tmp_path / "base", tiny_model), PathPolicy.for_person(service.settings.home)

    def asked(quantization: str) -> object:
        return export_spec(
            str(base), service.store, paths, quantization=quantization, output=str(tmp_path / "X.GGUF")
        )

    first = await service.submit(asked("q8_0"), find_equal=True)  # type: ignore[arg-type]
    async for _ in service.watch(first.run_id):
        pass
    view = await service.get(first.run_id)
    assert view.status is Status.COMPLETED, view.error
    again = await service.submit(asked("q8_0"), find_equal=True)  # type: ignore[arg-type]
    assert again.existing and again.run_id == first.run_id
    assert gguf_source(first.run_id, service.store, paths).path == tmp_path / "X.GGUF"
    with pytest.raises(InputError, match="already exists") as caught:
        await service.submit(asked("f16"), find_equal=True)  # type: ignore[arg-type]
    assert "folder" not in (caught.value.hint or "")
    runs, problems = await service.list()
    assert [run.run_id for run in runs] == [first.run_id] and not problems


def test_a_path_with_a_nul_is_an_error_of_the_argument(home: Path) -> None:
    with pytest.raises(InputError, match=r"output: .* is no path of a file"):
        PathPolicy.for_person(home).resolve("/tmp/a\0b", "output")
