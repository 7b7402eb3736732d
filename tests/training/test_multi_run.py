"""Trainings one after the other, merged into one adapter, and the ledger of what it remembers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest
import torch
from mcp import Client
from safetensors.torch import load_file
from small_multi_run import a_trainer, three_datasets
from torch import Tensor
from waiting import kill_worker, steps_of, wait_until

from backpropagate import Callbacks, Ledger, MultiRun, SLAOMerger, Trainer, TrainingService, time_aware_scale
from backpropagate.cli.main import run as command_line
from backpropagate.server.app import build_server
from backpropagate.training.config.results import MultiRunResult
from backpropagate.training.errors import InputError, InvalidSettingError, PartialSuccessError
from backpropagate.training.events import Event, Step
from backpropagate.training.requests.multi_run import multi_run_spec
from backpropagate.training.runs.folder import RunFolder, Status

pytestmark = pytest.mark.anyio
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def files(dataset: Path, tmp_path: Path) -> list[Path]:
    return three_datasets(dataset, tmp_path)


def delivered(run: MultiRun) -> dict[str, Tensor]:
    return load_file(run.adapter_path / WEIGHTS)


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def trained_from(
    model: Path, data: Path, start: dict[str, Tensor] | None, tmp_path: Path
) -> dict[str, Tensor]:
    """The weights of a plain training of three steps, from given weights."""
    from backpropagate.training.data.prepare import prepared_before
    from backpropagate.training.engine.loaded_model import StepModel
    from backpropagate.training.engine.loop.checkpoints import Checkpoints
    from backpropagate.training.engine.open_model import open_model
    from backpropagate.training.engine.plan import Data, Plan

    run = a_trainer(model, steps=3).train(data)
    record = json.loads((run.run_folder / "plan.json").read_text(encoding="utf-8"))
    plan = Plan.from_record(record).changed(adapter=tmp_path / "written")
    prepared = prepared_before(run.run_folder.parents[1] / "cache" / "tokens", plan.tokens_key)
    opened = open_model(plan, lambda event: None)
    assert isinstance(opened, StepModel) and prepared is not None
    if start is not None:
        opened.set_adapter_weights(start)
    rows = Data(prepared.train, prepared.held_out)
    opened.train(rows, lambda event: None, lambda: False, Checkpoints(tmp_path / f"{data.stem}-steps"))
    return opened.adapter_weights()


@pytest.mark.slow
def test_slao_is_the_chain_of_trainings_and_merges_of_the_paper(
    tiny_model: Path, files: list[Path], tmp_path: Path
) -> None:
    run = a_trainer(tiny_model).multi_run(tasks=files, steps_per_run=3, merge_scale="sqrt")
    merger = SLAOMerger()
    merger.initialize(trained_from(tiny_model, files[0], None, tmp_path))
    for file in files[1:]:
        merger.merge(trained_from(tiny_model, file, merger.get_init_weights(), tmp_path))
    assert equal(delivered(run), merger.get_merged_lora())
    assert [entry.scale for entry in run.ledger.runs] == [time_aware_scale(i) for i in (1, 2, 3)]
    saved = SLAOMerger.load(run.run_folder / "merges" / "run-003")
    assert equal(saved.get_merged_lora(), delivered(run)) and saved.run_index == 3
    assert equal(saved.get_tuned_lora(), merger.get_tuned_lora())


@pytest.mark.slow
def test_simple_trains_one_adapter_on_and_average_is_the_mean_of_independent_ones(
    tiny_model: Path, files: list[Path], tmp_path: Path
) -> None:
    first = trained_from(tiny_model, files[0], None, tmp_path)
    simple = a_trainer(tiny_model).multi_run(tasks=files[:2], steps_per_run=3, merge_mode="simple")
    assert equal(delivered(simple), trained_from(tiny_model, files[1], first, tmp_path))
    average = a_trainer(tiny_model).multi_run(tasks=files[:2], steps_per_run=3, merge_mode="average")
    second = trained_from(tiny_model, files[1], None, tmp_path / "alone")
    for name, tensor in delivered(average).items():
        torch.testing.assert_close(tensor, (first[name] + second[name]) / 2)


def test_the_delivered_adapter_loads_in_peft_and_the_ledger_has_its_losses(
    tiny_model: Path, files: list[Path]
) -> None:
    from peft import PeftModel
    from torch.nn.functional import cross_entropy
    from transformers import AutoModelForCausalLM

    run = a_trainer(tiny_model).multi_run(tasks={"a": files[0], "b": files[1]}, steps_per_run=4)
    base: Any = AutoModelForCausalLM.from_pretrained(tiny_model)
    peft: Any = PeftModel.from_pretrained(base, run.adapter_path).eval()
    tasks = json.loads((run.run_folder / "plan.json").read_text(encoding="utf-8"))["runs"]
    from backpropagate.training.data.prepare import prepared_before

    for index, plan in enumerate(tasks):
        data = prepared_before(run.run_folder.parents[1] / "cache" / "tokens", plan["tokens_key"])
        assert data is not None and len(data.held_out) == run.ledger.tasks[index].scored_rows == 8
        total, count = 0.0, 0
        for example in data.held_out:
            labels = torch.tensor([example.labels])
            with torch.no_grad():
                logits = peft(torch.tensor([example.input_ids])).logits[:, :-1]
            loss = cross_entropy(logits[0], labels[0, 1:], ignore_index=-100, reduction="sum")
            total, count = total + float(loss), count + int((labels[0, 1:] != -100).sum())
        assert run.ledger.runs[-1].scores[index] == pytest.approx(-total / count, abs=1e-5)
    card = (run.adapter_path / "README.md").read_text(encoding="utf-8")
    assert "Trained in 2 runs, merged by `slao`." in card and "- a: loss " in card
    result = run.result
    scores = [entry.scores for entry in run.ledger.runs]
    assert result.average == pytest.approx(sum(scores[1]) / 2) and result.num_runs == 2
    assert result.backward_transfer == pytest.approx(scores[1][0] - scores[0][0])
    assert result.forgetting == {"a": pytest.approx(scores[0][0] - scores[1][0])}
    assert result.eval_loss == pytest.approx(-result.average) and result.steps == 8
    assert Ledger.model_validate_json((run.run_folder / "ledger.json").read_bytes()) == run.ledger


def test_one_dataset_is_cut_into_disjoint_parts_beside_the_held_out_rows(
    tiny_model: Path, dataset: Path
) -> None:
    from backpropagate.training.data.prepare import prepared_before
    from backpropagate.training.worker.multi_run_tasks import rows_of_runs

    trainer = a_trainer(tiny_model)
    run = trainer.multi_run(dataset, num_runs=3, steps_per_run=2, samples_per_run=20, replay=0.2)
    plan = json.loads((run.run_folder / "plan.json").read_text(encoding="utf-8"))
    data = prepared_before(run.run_folder.parents[1] / "cache" / "tokens", plan["tokens_key"])
    spec = RunFolder(run.run_folder).spec()
    assert data is not None and spec.kind == "multi_run"
    tasks = rows_of_runs(spec, [data])
    parts = [{tuple(row.input_ids) for row in task.fresh} for task in tasks]
    held_out = [tuple(row.input_ids) for task in tasks for row in task.held_out]
    assert [len(part) for part in parts] == [20, 20, 20] and len(set.union(*parts)) == 60
    assert len(set(held_out)) == 10 and not set(held_out) & set.union(*parts)
    assert [len(task.replayed) for task in tasks] == [0, 5, 5] == [task.replayed for task in run.ledger.tasks]
    assert {tuple(row.input_ids) for row in tasks[1].replayed} <= parts[0]
    steps = steps_of(RunFolder(run.run_folder))
    assert [(step.run, step.num_runs, step.step) for step in steps[:3]] == [(1, 3, 1), (1, 3, 2), (2, 3, 1)]


def test_auto_takes_the_best_of_the_scales_that_it_tried_and_writes_all_down(
    tiny_model: Path, dataset: Path
) -> None:
    run = a_trainer(tiny_model).multi_run(dataset, num_runs=2, steps_per_run=3, learning_rate_decay=0.5)
    first, second = run.ledger.runs
    assert run.ledger.merge_scale == "auto"
    assert first.scale_scores == {} and len(second.scale_scores) == 5
    best = max(second.scale_scores.values())
    assert second.scale_scores[f"{second.scale:.6g}"] == best == pytest.approx(sum(second.scores) / 2)
    assert (first.learning_rate, second.learning_rate) == (1e-3, 5e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"num_runs": 4, "samples_per_run": 50},
            "samples_per_run=50 with num_runs=4 needs 200",
        ),
        ({"merge_mode": "simple", "merge_scale": "auto"}, "merge_scale=auto has no meaning"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_starts(
    tiny_model: Path, dataset: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidSettingError, match=message) as error:
        a_trainer(tiny_model).multi_run(dataset, **arguments)
    assert error.value.code.startswith("CONFIG_INVALID") and error.value.exit_code == 1


def test_a_lora_on_experts_is_not_merged_by_slao(tiny_model: Path, dataset: Path) -> None:
    trainer = Trainer(str(tiny_model), lora_target_modules=["q_proj", "mlp.experts.down_proj"])
    with pytest.raises(InvalidSettingError, match="on experts cannot be merged with merge_mode=slao"):
        trainer.multi_run(dataset, num_runs=2)


def test_tasks_that_train_on_each_others_held_out_rows_are_refused(
    tiny_model: Path, files: list[Path], dataset: Path
) -> None:
    with pytest.raises(InvalidSettingError, match=r"trains on \d+ of the held-out rows"):
        a_trainer(tiny_model).multi_run(tasks={"all": dataset, "red": files[0]}, steps_per_run=1)


def test_wrong_tasks_are_named(tiny_model: Path, files: list[Path], dataset: Path) -> None:
    trainer = a_trainer(tiny_model)
    for tasks, message in (
        ([files[0], files[0]], "2 tasks have the name 'red'"),
        ([{"name": "x"}], "has no dataset"),
        ([{"dataset": str(files[0]), "data": 1}], "Unknown field of a task 'data'"),
    ):
        with pytest.raises(InputError, match=message):
            trainer.multi_run(tasks=tasks)
    with pytest.raises(InputError, match="both given"):
        trainer.multi_run(dataset, tasks=files)
    with pytest.raises(InvalidSettingError, match="num_runs=2, but there are 3 tasks"):
        trainer.multi_run(tasks=files, num_runs=2)


def failing_at(run: int) -> Callbacks:
    def on_step(event: Event) -> None:
        if isinstance(event, Step) and event.run == run:
            raise RuntimeError("the power of the example fails")

    return Callbacks(on_step=on_step)


@pytest.mark.slow
def test_a_failed_run_keeps_the_merge_of_those_before_and_is_done_again_by_resume(
    tiny_model: Path, files: list[Path], service: TrainingService
) -> None:
    trainer = a_trainer(tiny_model)
    with pytest.raises(PartialSuccessError, match="Run 3 of 3 failed") as error:
        trainer.multi_run(tasks=files, steps_per_run=2, callback=failing_at(3))
    assert (error.value.code, error.value.exit_code) == ("PARTIAL_SUCCESS", 3)
    ((run, state),) = service.store.newest()
    assert isinstance(state.result, MultiRunResult) and state.status is Status.FAILED
    merged = SLAOMerger.load(run.path / "merges" / "run-002").get_merged_lora()
    assert equal(load_file(run.adapter_path / WEIGHTS), merged) and len(state.result.ledger.runs) == 2
    resumed = trainer.multi_run(resume_from=run.run_id)
    whole = trainer.multi_run(tasks=files, steps_per_run=2)
    assert resumed.ledger == whole.ledger and equal(delivered(resumed), delivered(whole))


def test_if_the_first_run_fails_the_whole_has_failed(tiny_model: Path, files: list[Path]) -> None:
    with pytest.raises(RuntimeError, match="the power of the example fails"):
        a_trainer(tiny_model).multi_run(tasks=files, steps_per_run=2, callback=failing_at(1))


def test_forgetting_more_than_allowed_stops_and_keeps_the_merge_before(
    tiny_model: Path, tmp_path: Path
) -> None:
    texts = {"abc": "abcabcabcabcabcabc", "xyz": "zyxzyxzyxzyxzyx"}
    for name, text in texts.items():
        rows = [json.dumps({"text": f"{number} {text * (1 + number % 3)}"}) for number in range(40)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    tasks = [tmp_path / f"{name}.jsonl" for name in texts]
    trainer = a_trainer(tiny_model, learning_rate=2e-2, batch_size=8)
    run = trainer.multi_run(tasks=tasks, steps_per_run=15, max_forgetting=0.05, merge_mode="simple")
    assert [entry.kept for entry in run.ledger.runs] == [True, False]
    assert any("max_forgetting=0.05" in warning for warning in run.warnings)
    merged = SLAOMerger.load(run.run_folder / "merges" / "run-001").get_merged_lora()
    assert equal(delivered(run), merged) and "1 of 2 runs merged" in run.result.summary


@pytest.mark.slow
async def test_a_multi_run_killed_in_the_middle_of_a_run_ends_as_an_undisturbed_one(
    service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    settings = {"batch_size": 2, "lora_r": 4, "threads": 1, "checkpoint_every_steps": 2, "lora_dropout": 0.1}
    multi = {"num_runs": 3, "steps_per_run": 30, "samples_per_run": 20}
    calm = Trainer(str(tiny_model), **settings).multi_run(dataset, **multi)  # type: ignore[arg-type]
    given = {"dataset": str(dataset), "model": str(tiny_model), **settings}
    spec = multi_run_spec(service.settings, arguments=given, multi=multi)
    stormy = service.store.find((await service.submit(spec)).run_id)
    wait_until(lambda: any(step.run == 2 and step.step >= 5 for step in steps_of(stormy)), "run 2, step 5")
    kill_worker(stormy)
    assert (await service.wait(stormy.run_id)).status is Status.INTERRUPTED
    await service.resume(stormy.run_id)
    after = await service.wait(stormy.run_id)
    assert calm.status is after.status is Status.COMPLETED and after.attempt == 2
    files = [Path(run.run_folder) for run in (calm, after)]
    assert (files[0] / "ledger.json").read_bytes() == (files[1] / "ledger.json").read_bytes()
    assert equal(*(load_file(file / "adapter" / WEIGHTS) for file in files))
    done = [(step.run, step.step) for step in steps_of(stormy)]
    assert (1, 1) in done and done.count((1, 1)) == 1 and done.count((2, 1)) == 1, "no run began anew"


async def test_an_assistant_runs_one_and_reads_its_ledger(
    service: TrainingService,
    dataset: Path,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    call = {
        "dataset": str(dataset), "model": str(tiny_model), "num_runs": 2, "steps_per_run": 2,
        "settings": {"batch_size": 2, "replay": 0.1},
    }  # fmt: skip
    async with Client(build_server(service, [tmp_path, tiny_model])) as client:
        result = await client.call_tool("multi_run", call)
        assert not result.is_error and result.structured_content, result.content
        text = result.content[0].text  # type: ignore[union-attr]
        assert "2 of 2 runs merged (slao)" in text and "Task 2 'part 2': loss" in text
        assert len(result.structured_content["ledger"]) == 2
        again = await client.call_tool("multi_run", call)
        assert again.structured_content and "already exists" in again.structured_content["note"]
        refused = await client.call_tool("multi_run", call | {"samples_per_run": 1000})
        assert refused.is_error and "CONFIG_INVALID" in refused.content[0].text  # type: ignore[union-attr]
    run_id = result.structured_content["run_id"]
    capsys.readouterr()
    await anyio.to_thread.run_sync(command_line, ["show-run", run_id])
    assert "Task 1 'part 1': loss" in capsys.readouterr().out


def test_tasks_without_held_out_rows_are_scored_on_their_training_rows_and_the_user_is_told(
    tiny_model: Path, files: list[Path], dataset: Path
) -> None:
    trainer = a_trainer(tiny_model, held_out=0)
    run = trainer.multi_run(tasks=files[:2], steps_per_run=1)
    assert [(task.scored_on, task.scored_rows) for task in run.ledger.tasks] == [("training", 60)] * 2
    assert any("No rows are held out for any task" in warning for warning in run.warnings)
    assert run.result.eval_loss is None and run.result.average is not None
    with pytest.raises(InputError, match="resume cannot be given with num_runs"):
        trainer.multi_run(num_runs=3, resume_from=run.run_id)
    with pytest.raises(InputError, match="is of kind multi_run"):
        trainer.train(resume_from=run.run_id)


@pytest.mark.nightly
@pytest.mark.slow
def test_the_command_line_takes_named_tasks_and_says_what_is_wrong(
    tiny_model: Path, files: list[Path], dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["multi-run", "--model", str(tiny_model), "--batch-size", "2", "--lora-r", "4", "--json"]
    tasks = ["--task", f"red={files[0]}", "--task", f"green={files[1]}"]
    assert command_line([*command, *tasks, "--steps", "2", "--merge-mode", "simple"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [task["name"] for task in shown["result"]["ledger"]["tasks"]] == ["red", "green"]
    assert shown["step"] == 4 and shown["result"]["ledger"]["merge_mode"] == "simple"
    assert command_line([*command, "--data", str(dataset), "--runs", "3", "--samples", "100"]) == 1
    assert "Set samples_per_run=63 or less" in capsys.readouterr().out
    assert command_line([*command, "--task", "=x"]) == 1
    assert command_line([*command, "--data", str(dataset), "--engine", "trl"]) == 1
    assert "cannot use engine=trl" in capsys.readouterr().out
