"""The code of docs/python.md is run, and TrainingService takes keywords."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from backpropagate import Status, Trainer, TrainingService
from backpropagate.training.config.specs import TrainSpec
from backpropagate.training.errors import InputError
from backpropagate.training.runs.store import RunStore

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
CODE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.nightly
@pytest.mark.slow
def test_the_code_of_the_page_runs(
    home: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples", target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for code in CODE:
        small = code.replace("smollm2-135m", str(tiny_model)).replace("steps=40", "steps=2")
        exec(compile(small, "docs/python.md", "exec"), names)
    shown = capfd.readouterr().out
    assert "held out: " in shown and "Did you mean learning_rate?" in shown
    assert (tmp_path / "my-adapter" / "adapter_model.safetensors").is_file()
    assert len(CODE) == 8 and len(TrainingService().store.ids()) == 5


@pytest.mark.anyio
async def test_keywords_make_the_spec_that_the_tool_and_the_command_make(
    service: TrainingService, dataset: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.dispatch, "start", lambda run: None)
    monkeypatch.chdir(dataset.parent)
    first = await service.train(Path(dataset.name), tiny_model, max_steps=3, lora_r=None)  # type: ignore[call-arg]
    spec = service.store.find(first.run_id).spec()
    assert isinstance(spec, TrainSpec) and spec.data.source == str(dataset)
    assert (spec.model.name, spec.training.steps, spec.lora.r) == (str(tiny_model), 3, 16)
    again = await service.train([dataset.as_uri()], str(tiny_model), steps=3)
    assert again.run_id != first.run_id  # a list of one file is another request
    assert (await service.train(str(dataset), tiny_model.as_uri(), steps=3)).run_id == first.run_id
    assert (await service.train(dataset, tiny_model, steps=3, new_run=True)).run_id != first.run_id
    with pytest.raises(InputError, match="steps"):
        await service.train(dataset, tiny_model, steps=0)
    with pytest.raises(InputError, match="rows in memory"):
        await service.train([{"text": "a"}], tiny_model)  # type: ignore[list-item]


@pytest.mark.anyio
@pytest.mark.slow
async def test_waiting_returns_the_run_as_it_ended(
    service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    started = await service.train(dataset, tiny_model, steps=1, threads=1)
    assert (await service.wait(started.run_id)).status is Status.COMPLETED


def test_a_trainers_run_has_its_held_out_losses_its_warnings_and_its_whole_result(
    home: Path, tiny_model: Path, tmp_path: Path
) -> None:
    rows = "".join(f'{{"prompt": "Number {n}?", "completion": "It is {n}."}}\n' for n in range(200))
    (tmp_path / "rows.jsonl").write_text(rows + '{"prompt": "Unanswered?"}\n')
    trainer = Trainer(
        str(tiny_model), learning_rate=0.01, batch_size=8, threads=1, held_out=0.1, on_bad_rows="skip"
    )
    run = trainer.train(tmp_path / "rows.jsonl", steps=30)
    assert run.eval_loss_before and run.eval_loss and run.eval_loss < run.eval_loss_before
    assert run.result.held_out == 20 and run.result.eval_loss == run.eval_loss
    state = RunStore(home).find(run.run_id).state()
    assert run.result == state.result and run.warnings == state.warnings
    assert any("Dropped: 1 row" in warning for warning in run.warnings)
