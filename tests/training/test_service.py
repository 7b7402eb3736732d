"""What the service promises: durable runs, one at a time, found again by their requests."""

from __future__ import annotations

import json
import os
from pathlib import Path

import psutil
import pytest
from finished_runs import finished_run
from small_disk import needs_small_disk, small_disk
from waiting import (
    busy_device,
    kill_worker,
    phases_of,
    small_spec,
    wait_for_phase,
    wait_until,
)

from backpropagate.training.config.specs import InspectSpec, TrainSpec
from backpropagate.training.errors import (
    DatasetError,
    DatasetNotFoundError,
    DiskFullError,
    InputError,
    QueueFullError,
    RequestKeyReusedError,
    RunFolderError,
    RunNotFoundError,
)
from backpropagate.training.files.atomic_json import read_json, write_json
from backpropagate.training.runs.device_queue import DeviceQueue
from backpropagate.training.runs.folder import RunFolder, Status
from backpropagate.training.runs.kinds import SHORT_PLACES
from backpropagate.training.runs.view import RunView
from backpropagate.training.service import TrainingService
from backpropagate.training.worker import attend

pytestmark = pytest.mark.anyio


def folder_of(service: TrainingService, run_id: str) -> RunFolder:
    return service.store.find(run_id)


async def end_of(service: TrainingService, run_id: str) -> Status:
    async for _ in service.watch(run_id):
        pass
    return (await service.get(run_id)).status


async def test_a_run_trains_and_leaves_an_adapter_that_plain_peft_loads(
    service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    spec = small_spec(dataset, tiny_model, questions=["What is zorvex?"], max_new_tokens=4)
    submission = await service.submit(spec)
    assert await end_of(service, submission.run_id) is Status.COMPLETED
    view = await service.get(submission.run_id)
    assert (view.step, view.total_steps) == (3, 3)
    assert view.answers[0].before is not None and view.answers[0].after is not None

    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert view.adapter_path
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    PeftModel.from_pretrained(base, view.adapter_path)
    assert AutoTokenizer.from_pretrained(view.adapter_path).chat_template
    provenance = read_json(Path(view.run_folder) / "provenance.json")
    held_out = provenance["dataset"]["held_out_rows"]
    assert len(held_out) == len(set(held_out)) == provenance["dataset"]["held_out"] == 10
    assert provenance["seed"] == 42 and len(provenance["dataset"]["provenance"]["content_hash"]) == 64


@pytest.mark.slow
async def test_a_second_run_waits_its_turn_and_starts_by_itself_also_from_another_home(
    service: TrainingService, dataset: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKPROPAGATE_HOME", str(tmp_path / "another"))
    other = TrainingService()
    device = busy_device(service.runtime_folder)
    spec = small_spec(dataset, tiny_model)
    first = await service.submit(spec)
    second = await other.submit(spec)
    wait_for_phase(folder_of(service, first.run_id), "waiting")
    wait_for_phase(folder_of(other, second.run_id), "waiting")
    assert (await service.get(first.run_id)).status is Status.QUEUED
    device.release()
    assert await end_of(service, first.run_id) is Status.COMPLETED
    assert await end_of(other, second.run_id) is Status.COMPLETED
    ended, started = (await service.get(first.run_id)).ended_at, (await other.get(second.run_id)).started_at
    assert ended and started and ended <= started


async def test_a_queued_run_can_be_cancelled(
    service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    device = busy_device(service.runtime_folder)
    submission = await service.submit(small_spec(dataset, tiny_model))
    wait_for_phase(folder_of(service, submission.run_id), "waiting")
    await service.cancel(submission.run_id)
    assert await end_of(service, submission.run_id) is Status.CANCELLED
    device.release()


async def test_a_run_that_was_cancelled_in_the_queue_can_be_resumed_at_once(
    service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    device = busy_device(service.runtime_folder)
    submission = await service.submit(small_spec(dataset, tiny_model))
    wait_for_phase(folder_of(service, submission.run_id), "waiting")
    await service.cancel(submission.run_id)
    assert await end_of(service, submission.run_id) is Status.CANCELLED
    view = await service.resume(submission.run_id)
    assert (view.status, view.attempt) == (Status.QUEUED, 2)
    run = folder_of(service, submission.run_id)
    wait_until(lambda: phases_of(run).count("waiting") == 2, "its place in the queue")
    await service.cancel(submission.run_id)
    assert await end_of(service, submission.run_id) is Status.CANCELLED
    device.release()


async def test_a_worker_that_cannot_start_fails_the_run(
    service: TrainingService, dataset: Path, tiny_model: Path, tmp_path: Path
) -> None:
    service = TrainingService(service.settings.model_copy(update={"python": str(tmp_path / "no-python")}))
    submission = await service.submit(small_spec(dataset, tiny_model))
    assert await end_of(service, submission.run_id) is Status.FAILED
    view = await service.get(submission.run_id)
    assert view.error and "could not start" in view.error.message


async def test_cancelling_while_the_model_loads_ends_the_run(
    service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    submission = await service.submit(small_spec(dataset, tiny_model, steps=100_000))
    wait_for_phase(folder_of(service, submission.run_id), "loading")
    await service.cancel(submission.run_id)
    assert await end_of(service, submission.run_id) is Status.CANCELLED


async def test_an_inspection_is_listed_while_it_has_a_place_in_a_queue(
    service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    lanes = [DeviceQueue(service.runtime_folder, "short") for _ in SHORT_PLACES]
    for lane, place in zip(lanes, SHORT_PLACES, strict=True):
        assert lane.take_unless_busy([place])
    spec = InspectSpec.model_validate({"model": {"name": str(tiny_model)}, "data": {"source": str(dataset)}})
    run_id = (await service.submit(spec)).run_id
    assert [view.run_id for view in (await service.list())[0]] == [run_id]
    for lane in lanes:
        lane.release()
    assert await end_of(service, run_id) is Status.COMPLETED
    assert (await service.list())[0] == []


async def test_more_steps_for_a_run_that_is_no_training_are_refused_and_not_ignored(
    service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    spec = InspectSpec.model_validate({"model": {"name": str(tiny_model)}, "data": {"source": str(dataset)}})
    run_id = (await service.submit(spec)).run_id
    assert await end_of(service, run_id) is Status.COMPLETED
    with pytest.raises(InputError, match="no single training"):
        await service.resume_or_extend(run_id, 10)


@pytest.mark.slow
async def test_a_cancelled_run_whose_process_is_stopped_is_ended_from_outside(
    service: TrainingService, dataset: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = busy_device(service.runtime_folder)
    frozen = folder_of(service, (await service.submit(small_spec(dataset, tiny_model))).run_id)
    wait_for_phase(frozen, "waiting")
    psutil.Process(frozen.state().pid).suspend()
    monkeypatch.setattr(attend, "STEP_GRACE_S", 0)
    monkeypatch.setattr(attend, "MORE_S", 0.3)
    await service.cancel(frozen.run_id)
    assert await end_of(service, frozen.run_id) in {Status.CANCELLED, Status.INTERRUPTED}
    wait_until(lambda: frozen.state().status is Status.CANCELLED, "the record of the end")
    following = folder_of(service, (await service.submit(small_spec(dataset, tiny_model, seed=7))).run_id)
    device.release()
    wait_until(lambda: following.state().status is Status.RUNNING, "the next in line")
    await service.cancel(following.run_id)
    await end_of(service, following.run_id)


@pytest.mark.parametrize(
    "phase",
    [
        "waiting",
        pytest.param("loading", marks=pytest.mark.nightly),
        "training",
        pytest.param("saving", marks=pytest.mark.nightly),
    ],
)
@pytest.mark.slow
async def test_a_killed_worker_leaves_an_interrupted_run_and_the_next_in_line_starts(
    phase: str, service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    device = busy_device(service.runtime_folder)
    steps = 1 if phase == "saving" else 100_000
    doomed = folder_of(service, (await service.submit(small_spec(dataset, tiny_model, steps=steps))).run_id)
    wait_for_phase(doomed, "waiting")
    following = await service.submit(small_spec(dataset, tiny_model, seed=7))
    wait_for_phase(folder_of(service, following.run_id), "waiting")
    if phase != "waiting":
        device.release()
        wait_for_phase(doomed, phase)
    kill_worker(doomed)
    end = await end_of(service, doomed.run_id)
    view = await service.get(doomed.run_id)
    if end is Status.COMPLETED:  # the blow fell after the adapter was saved, or after all was done
        assert phase == "saving" and all("after the adapter was saved" in text for text in view.warnings)
        assert (doomed.path / "adapter/adapter_config.json").is_file()
        return
    assert end is Status.INTERRUPTED
    assert view.error and view.error.code == "RUNTIME_RUN_INTERRUPTED" and "memory" in view.error.message
    assert not list(doomed.path.glob("adapter")) or (doomed.path / "adapter/adapter_config.json").is_file()
    if phase == "waiting":
        device.release()
        wait_for_phase(folder_of(service, following.run_id), "downloading")
        await service.cancel(following.run_id)
        await end_of(service, following.run_id)
    else:
        wait_for_phase(folder_of(service, following.run_id), "downloading")
        await service.cancel(following.run_id)
        await end_of(service, following.run_id)


async def test_the_twenty_first_in_line_is_refused_and_leaves_nothing_behind(
    service: TrainingService, dataset: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.dispatch, "start", lambda run: None)  # idle workers prove no more
    for seed in range(20):
        await service.submit(small_spec(dataset, tiny_model, seed=seed))
    with pytest.raises(QueueFullError, match="20 runs are waiting"):
        await service.submit(small_spec(dataset, tiny_model, seed=99))
    assert len(service.store.ids()) == 20
    assert len(list((service.store.home / "active").iterdir())) == 20


async def test_a_request_key_finds_its_run_and_refuses_other_arguments(
    service: TrainingService, dataset: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.dispatch, "start", lambda run: None)
    spec = small_spec(dataset, tiny_model)
    first = await service.submit(spec, request_key="tickets")
    again = await service.submit(spec, request_key="tickets")
    assert (first.existing, again.existing) == (False, True) and again.run_id == first.run_id
    with pytest.raises(RequestKeyReusedError, match="tickets"):
        await service.submit(small_spec(dataset, tiny_model, seed=1), request_key="tickets")


async def test_an_equal_request_finds_a_live_run_unless_the_data_has_changed(
    service: TrainingService, dataset: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.dispatch, "start", lambda run: None)
    spec = small_spec(dataset, tiny_model)
    first = await service.submit(spec, find_equal=True)
    assert (await service.submit(spec, find_equal=True)).run_id == first.run_id
    assert (await service.submit(spec)).run_id != first.run_id
    dataset.write_text(dataset.read_text() + '{"text": "one more row"}\n')
    assert (await service.submit(spec, find_equal=True)).run_id != first.run_id


@pytest.mark.parametrize(("first", "second"), [(None, "tickets"), ("tickets", None), ("tickets", "again")])
async def test_a_key_and_an_equal_request_find_each_others_run(
    service: TrainingService,
    dataset: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    first: str | None,
    second: str | None,
) -> None:
    monkeypatch.setattr(service.dispatch, "start", lambda run: None)
    spec = small_spec(dataset, tiny_model)
    made = await service.submit(spec, request_key=first, find_equal=True)
    found = await service.submit(spec, request_key=second, find_equal=True)
    assert (found.run_id, found.existing, found.by_key) == (made.run_id, True, False)
    if second:
        dataset.write_text(dataset.read_text() + '{"text": "one more row"}\n')
        later = await service.submit(spec, request_key=second, find_equal=True)
        assert (later.run_id, later.existing, later.by_key) == (made.run_id, True, True)


async def test_a_new_run_is_found_by_the_equal_requests_after_it_and_its_key_stays_its_own(
    service: TrainingService, dataset: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.dispatch, "start", lambda run: None)
    spec = small_spec(dataset, tiny_model)
    older = await service.submit(spec, find_equal=True)
    newer = await service.submit(spec, request_key="new")
    assert newer.run_id != older.run_id and not newer.existing
    assert (await service.submit(spec, find_equal=True)).run_id == newer.run_id
    assert (await service.submit(spec, request_key="new")).run_id == newer.run_id


async def test_a_key_finds_its_run_also_when_the_server_may_read_other_folders(
    service: TrainingService, dataset: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.dispatch, "start", lambda run: None)
    spec = small_spec(dataset, tiny_model)
    first = await service.submit(spec, request_key="tickets")
    roots = spec.model_copy(update={"roots": (str(dataset.parent), str(tiny_model.parent))})
    assert (await service.submit(roots, request_key="tickets")).run_id == first.run_id


async def test_an_equal_request_after_a_cancelled_run_names_that_run(
    service: TrainingService, dataset: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.dispatch, "start", lambda run: None)
    spec = small_spec(dataset, tiny_model)
    first = await service.submit(spec, find_equal=True)
    await service.cancel(first.run_id)
    second = await service.submit(spec, find_equal=True)
    assert (second.existing, second.stopped, first.stopped) == (False, first.run_id, None)


async def test_a_failed_run_never_answers_an_equal_request(
    service: TrainingService, tmp_path: Path, tiny_model: Path
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "fine"}\n{"text": "fine"}\n{"text": oops}\n')
    spec = small_spec(bad, tiny_model)
    first = await service.submit(spec, find_equal=True)
    assert await end_of(service, first.run_id) is Status.FAILED
    view = await service.get(first.run_id)
    assert (
        view.error and view.error.code == "INPUT_DATASET_PARSE_FAILED" and "bad.jsonl:3" in view.error.message
    )
    assert "loading" not in phases_of(folder_of(service, first.run_id))
    second = await service.submit(spec, find_equal=True)
    assert second.run_id != first.run_id
    await end_of(service, second.run_id)


@pytest.mark.nightly
@pytest.mark.slow
async def test_a_run_that_did_harm_says_so_and_one_that_helped_says_by_how_much(
    service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    async def view_of(spec: TrainSpec) -> RunView:
        run_id = (await service.submit(spec)).run_id
        assert await end_of(service, run_id) is Status.COMPLETED
        return await service.get(run_id)

    good = await view_of(small_spec(dataset, tiny_model, learning_rate=0.01, steps=100))
    assert good.eval_loss and good.eval_loss_before and good.eval_loss < good.eval_loss_before
    assert not any("is worse than before" in warning for warning in good.warnings)
    reckless = small_spec(dataset, tiny_model, learning_rate=0.5, steps=40)
    bad = await view_of(reckless.model_copy(update={"parent": good.run_id}))
    assert bad.eval_loss_before == pytest.approx(good.eval_loss, rel=1e-3) and bad.parent == good.run_id
    assert any("held-out loss increased from" in warning for warning in bad.warnings)


async def test_old_inspections_are_removed_when_a_server_starts_and_nothing_else(
    service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    training = small_spec(dataset, tiny_model)
    inspection = InspectSpec(model=training.model, data=training.data, roots=training.roots)
    old, new = await service.submit(inspection), await service.submit(inspection)
    for run in (old, new):
        assert await end_of(service, run.run_id) is Status.COMPLETED
    kept = finished_run(service.store, training, {"kind": "train", "steps": 3})
    for run in (old, kept):
        os.utime(folder_of(service, run.run_id).path, (0, 0))
    await service.recover()
    assert service.store.ids() == sorted([new.run_id, kept.run_id], reverse=True)


async def test_data_is_checked_while_the_device_is_still_busy(
    service: TrainingService, tmp_path: Path, tiny_model: Path
) -> None:
    device = busy_device(service.runtime_folder)
    bad = tmp_path / "bad.jsonl"
    bad.write_text("[1, 2]\n")
    submission = await service.submit(small_spec(bad, tiny_model))
    assert await end_of(service, submission.run_id) is Status.FAILED
    device.release()


async def test_bad_datasets_are_refused_before_a_run_is_made(
    service: TrainingService, tmp_path: Path, tiny_model: Path
) -> None:
    with pytest.raises(DatasetNotFoundError, match=r"missing\.jsonl"):
        await service.submit(small_spec(tmp_path / "missing.jsonl", tiny_model))
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    with pytest.raises(DatasetError, match="empty"):
        await service.submit(small_spec(empty, tiny_model))
    assert service.store.ids() == []


async def test_an_unknown_target_module_is_refused_before_a_run_is_made(
    service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    targets = ["model.layers.0.self_attn.q_proj", "up_prj"]
    with pytest.raises(InputError, match="no linear module 'up_prj'") as caught:
        await service.submit(small_spec(dataset, tiny_model, lora_target_modules=targets))
    assert caught.value.hint == "Did you mean up_proj?" and service.store.ids() == []


async def test_a_run_of_another_host_is_shown_as_that_and_left_alone(
    service: TrainingService, dataset: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.dispatch, "start", lambda run: None)
    run = folder_of(service, (await service.submit(small_spec(dataset, tiny_model))).run_id)
    state = read_json(run.path / "state.json")
    write_json(run.path / "state.json", {**state, "status": "running", "host": "elsewhere", "pid": 1})
    view = await service.get(run.run_id)
    assert (view.status, view.host) == (Status.RUNNING, "elsewhere")
    with pytest.raises(InputError, match="elsewhere"):
        await service.cancel(run.run_id)
    with pytest.raises(InputError, match="elsewhere"):
        await service.delete(run.run_id)


async def test_a_run_that_was_running_at_a_restart_is_interrupted_and_a_queued_one_is_started_again(
    service: TrainingService, dataset: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    monkeypatch.setattr(service.dispatch, "start", lambda run: started.append(run.run_id))
    runs = [
        folder_of(service, (await service.submit(small_spec(dataset, tiny_model, seed=seed))).run_id)
        for seed in (1, 2)
    ]
    for run, status in zip(runs, ("running", "queued"), strict=True):
        state = read_json(run.path / "state.json")
        write_json(run.path / "state.json", {**state, "status": status, "pid": 1, "boot_id": "before"})
    started.clear()
    await service.recover()
    assert started == [runs[1].run_id]
    view = await service.get(runs[0].run_id)
    assert view.status is Status.INTERRUPTED and view.error and "restarted" in view.error.message


async def test_a_run_whose_starter_died_is_started_by_the_next_service(
    service: TrainingService, dataset: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.dispatch, "start", lambda run: None)
    spec = InspectSpec.model_validate({"model": {"name": str(tiny_model)}, "data": {"source": str(dataset)}})
    run = folder_of(service, (await service.submit(spec)).run_id)
    state = read_json(run.path / "state.json")
    write_json(run.path / "state.json", {**state, "created_at": "2026-01-01T00:00:00.000Z"})
    await TrainingService().recover()
    assert await end_of(service, run.run_id) is Status.COMPLETED


async def test_an_unreadable_run_folder_is_named_and_does_not_hide_the_others(
    service: TrainingService, dataset: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.dispatch, "start", lambda run: None)
    good = await service.submit(small_spec(dataset, tiny_model))
    bad = folder_of(service, (await service.submit(small_spec(dataset, tiny_model, seed=1))).run_id)
    (bad.path / "state.json").write_text("{ torn")
    views, unreadable = await service.list()
    assert [view.run_id for view in views] == [good.run_id]
    assert "STATE_RUN_UNREADABLE" in unreadable[0] and "state.json" in unreadable[0]
    with pytest.raises(RunFolderError, match=r"state\.json"):
        await service.get(bad.run_id)


async def test_any_unique_part_of_an_id_finds_a_run(
    service: TrainingService, dataset: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.dispatch, "start", lambda run: None)
    ids = [(await service.submit(small_spec(dataset, tiny_model, seed=seed))).run_id for seed in range(2)]
    assert (await service.get(ids[0][-4:])).run_id == ids[0]
    with pytest.raises(RunNotFoundError, match="matches 2 runs"):
        await service.get("tiny-llama")
    with pytest.raises(RunNotFoundError, match="nonsense"):
        await service.get("nonsense")


@needs_small_disk
async def test_a_full_disk_refuses_the_run_and_leaves_nothing_half_written(
    dataset: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "small-disk"
    with small_disk(disk, "256k"):
        monkeypatch.setenv("BACKPROPAGATE_HOME", str(disk / "home"))
        service = TrainingService()
        run = await service.submit(small_spec(dataset, tiny_model, lora_r=64, steps=1))
        assert await end_of(service, run.run_id) is Status.FAILED  # the adapter does not fit
        view = await service.get(run.run_id)
        assert view.error and view.error.code == "RUNTIME_DISK_FULL"
        assert not (Path(view.run_folder) / "adapter").exists()
        (disk / "filler").write_bytes(b"x" * 10)
        with pytest.raises(OSError, match="No space left"):
            (disk / "rest").write_bytes(b"x" * 2**20)
        before = service.store.ids()
        with pytest.raises(DiskFullError) as caught:
            await service.submit(small_spec(dataset, tiny_model, seed=1))
        assert caught.value.exit_code == 2
        assert service.store.ids() == before
        assert json.loads((Path(view.run_folder) / "state.json").read_text())["status"] == "failed"
