"""engine="unsloth": Unsloth trains in an environment of its own, or our own engine does and says why."""

from __future__ import annotations

import os
import shutil
import sys
import venv
from contextlib import suppress
from pathlib import Path
from textwrap import dedent

import psutil
import pytest
from rarer import rarer
from waiting import events_of, kill_worker, small_spec, wait_until

from backpropagate import Callbacks, Trainer
from backpropagate.training import events
from backpropagate.training.errors import GpuOutOfMemoryError
from backpropagate.training.events import Event
from backpropagate.training.runs.folder import RunFolder, Status
from backpropagate.training.service import TrainingService

SETTING = "BACKPROPAGATE_UNSLOTH__PYTHON"
REAL = os.environ.get(SETTING)  # each test begins without such variables

STAND_IN = '''
"""Loads as Unsloth does, with plain transformers and PEFT."""
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

print("a banner on stdout")

class FastLanguageModel:
    @staticmethod
    def from_pretrained(folder, max_seq_length, load_in_4bit, use_exact_model_name, **options):
        model = AutoModelForCausalLM.from_pretrained(folder, **options)
        return model, AutoTokenizer.from_pretrained(folder)

    @staticmethod
    def get_peft_model(model, use_gradient_checkpointing, random_state, **lora):
        torch.manual_seed(random_state)
        return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **lora))
'''


def environment_with_stand_in(folder: Path, stand_in: str = STAND_IN) -> Path:
    """The interpreter of a virtual environment with a stand-in for Unsloth beside this one's libraries."""
    venv.create(folder, symlinks=os.name != "nt")
    site = next(folder.glob("[Ll]ib/**/site-packages"))
    (site / "ours.pth").write_text("\n".join(path for path in sys.path if "site-packages" in path))
    (site / "unsloth.py").write_text(stand_in)
    (site / "unsloth-0.0.dist-info").mkdir()
    (site / "unsloth-0.0.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: unsloth\nVersion: 0.0\n"
    )
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


@pytest.fixture(params=["a stand-in", "the real one"])
def unsloth(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What BACKPROPAGATE_UNSLOTH__PYTHON names."""
    if request.param == "the real one" and REAL is None:
        pytest.skip(f"{SETTING} names no interpreter with Unsloth")
    python = REAL if request.param == "the real one" else environment_with_stand_in(tmp_path / "environment")
    monkeypatch.setenv(SETTING, str(python))
    return request.param


def a_trainer(model: Path, **settings: object) -> Trainer:
    return Trainer(str(model), lora_r=4, batch_size=4, threads=1, **settings)  # type: ignore[arg-type]


def result_of(run: RunFolder) -> dict[str, object]:
    result = run.state().result
    return result.model_dump() if result else {}


@pytest.mark.slow
def test_unsloth_trains_on_the_same_examples_and_leaves_a_plain_adapter(
    unsloth: str, service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    own = a_trainer(tiny_model, eval_every=2).train(dataset, steps=4)
    asked = a_trainer(tiny_model, engine="unsloth", eval_every=2, questions=["What is zorvex?"])
    run = asked.train(dataset, steps=4)
    folder = service.store.find(run.run_id)
    result = result_of(folder)
    assert run.status is Status.COMPLETED and result["engine"] == "unsloth", result
    # No Unsloth leaves out padding on a CPU, nor does a stand-in.
    assert "Unsloth " in str(result["engine_reason"]) and "padded batches" in str(result["engine_reason"])
    # B is zero at first, so the first loss depends on the examples alone; the second already on a step.
    assert run.losses == pytest.approx(own.losses, rel=1e-2)
    assert run.losses[0] == pytest.approx(own.losses[0], rel=1e-4)
    assert [getattr(event, "step", None) for event in events_of(folder) if event.kind == "eval"] == [2, 4]

    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    adapted = PeftModel.from_pretrained(base, folder.adapter_path)
    assert any(value.abs().sum() > 0 for name, value in adapted.named_parameters() if "lora_B" in name)
    assert not list(folder.path.glob(".unsloth"))
    answers = result["answers"]
    assert isinstance(answers, list) and [one["question"] for one in answers] == ["What is zorvex?"]


@pytest.mark.nightly
@pytest.mark.slow
def test_the_held_out_loss_is_per_label_token_whatever_the_batch(
    unsloth: str, service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    found = [
        result_of(service.store.find(trainer.train(dataset, steps=12).run_id))
        for trainer in (a_trainer(tiny_model), a_trainer(tiny_model, engine="unsloth"))
    ]
    assert [result["engine"] for result in found] == ["packed", "unsloth"]
    # The model as it came is the same for both: only the mean could differ.
    own, unsloths = (result["eval_loss_before"] for result in found)
    assert unsloths == pytest.approx(own, rel=1e-6 if unsloth == "a stand-in" else 1e-3)
    assert found[1]["eval_loss"] == pytest.approx(found[0]["eval_loss"], rel=1e-2)


@pytest.mark.nightly
@pytest.mark.slow
def test_a_cancelled_run_stops_within_one_step_and_keeps_what_unsloth_has_learnt(
    unsloth: str, service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    steps: list[Event] = []
    run = a_trainer(tiny_model, engine="unsloth").train(
        dataset, steps=1000, should_stop=lambda: len(steps) >= 3, callback=Callbacks(on_step=steps.append)
    )
    assert run.status is Status.CANCELLED and run.steps == 3
    assert (run.adapter_path / "adapter_model.safetensors").is_file()
    assert result_of(service.store.find(run.run_id))["engine"] == "unsloth"


@pytest.mark.nightly
@pytest.mark.slow
def test_an_evaluation_of_unsloths_tells_how_far_it_is_and_can_be_stopped(
    unsloth: str, service: TrainingService, dataset: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "REPORT_EVERY_S", 0.0)

    def told() -> list[str]:
        run = service.store.find(service.store.ids()[0])
        return [event.message for event in events_of(run) if event.kind == "phase"]

    run = a_trainer(tiny_model, engine="unsloth", eval_every=2, held_out=0.1).train(
        dataset, steps=30, should_stop=lambda: "evaluating: 8 of 20 rows" in told()
    )
    assert run.status is Status.CANCELLED and run.steps == 2
    assert "evaluating the model as it is: 16 of 20 rows" in told() and "evaluating: 8 of 20 rows" in told()
    assert "evaluating: 16 of 20 rows" not in told()
    assert (run.adapter_path / "adapter_model.safetensors").is_file()


@pytest.mark.slow
def test_memory_that_runs_out_over_a_held_out_row_is_told_as_that(
    service: TrainingService, dataset: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_when_measured = """
    def _get(model, get=FastLanguageModel.get_peft_model, **lora):
        made = get(model, **lora)
        def refuse(module, given):
            if not module.training:
                raise torch.OutOfMemoryError("CUDA out of memory")
        made.register_forward_pre_hook(refuse)
        return made
    FastLanguageModel.get_peft_model = staticmethod(_get)
    """
    stand_in = STAND_IN + dedent(full_when_measured)
    monkeypatch.setenv(SETTING, str(environment_with_stand_in(tmp_path / "environment", stand_in)))
    with pytest.raises(GpuOutOfMemoryError, match="over a held-out row"):
        a_trainer(tiny_model, engine="unsloth", eval_every=2).train(dataset, steps=4)


@pytest.mark.anyio
@pytest.mark.slow
async def test_unsloths_process_dies_with_the_worker(
    service: TrainingService, dataset: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = environment_with_stand_in(tmp_path / "environment", "import time; time.sleep(120)")
    monkeypatch.setenv(SETTING, str(python))
    run = service.store.find((await service.submit(small_spec(dataset, tiny_model, engine="unsloth"))).run_id)
    wait_until(lambda: run.state().pid, "the worker")
    worker = psutil.Process(run.state().pid)
    wait_until(lambda: children(worker, "child.py"), "Unsloth's process")
    child = children(worker, "child.py")[0]
    kill_worker(run)
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "its end")
    wait_until(lambda: service.store.observe(run).status is Status.INTERRUPTED, "the worker's end")


def children(process: psutil.Process, name: str) -> list[psutil.Process]:
    """Those that run this file."""
    found: list[psutil.Process] = []
    for child in process.children():
        with suppress(psutil.Error):  # it has ended between the two looks
            if name in " ".join(child.cmdline()):
                found.append(child)
    return found


@pytest.mark.parametrize(
    ("python", "reason"),
    [
        (None, f"{SETTING} is not set"),
        rarer("/no/such/python", "names /no/such/python, which does not exist"),
        (sys.executable, "it said 'ModuleNotFoundError"),
        rarer(shutil.which("false"), "its process ended with exit code 1"),
        rarer(__file__, "cannot be started"),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="Windows has no `false`")
def test_without_unsloth_our_own_engine_trains_and_the_run_says_why(
    python: str | None,
    reason: str,
    service: TrainingService,
    dataset: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if python is not None:
        monkeypatch.setenv(SETTING, python)
    run = a_trainer(tiny_model, engine="unsloth").train(dataset, steps=2)
    folder = service.store.find(run.run_id)
    result = result_of(folder)
    assert run.status is Status.COMPLETED and len(run.losses) == 2
    assert result["engine"] == "packed" and reason in str(result["engine_reason"])
    warnings = [getattr(event, "message", None) for event in events_of(folder) if event.kind == "warning"]
    assert any("instead of Unsloth" in warning and reason in warning for warning in warnings), warnings


@pytest.mark.slow
def test_a_run_that_our_engine_has_begun_goes_on_with_it(
    service: TrainingService, dataset: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[Event] = []
    trainer = a_trainer(tiny_model, engine="unsloth")
    run = trainer.train(
        dataset, steps=6, should_stop=lambda: len(steps) >= 3, callback=Callbacks(on_step=steps.append)
    )
    monkeypatch.setenv(SETTING, sys.executable)  # it would be asked now
    trainer.train(resume_from=run.run_id)
    result = result_of(service.store.find(run.run_id))
    assert result["resumed_from"] == 3 and "checkpoints are our own engine's" in str(result["engine_reason"])


def test_a_model_that_unsloth_cannot_train_is_trained_by_our_own_engine(
    service: TrainingService, dataset: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if REAL is None:
        pytest.skip(f"{SETTING} names no interpreter with Unsloth")
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    monkeypatch.setenv(SETTING, REAL)
    sizes = {"vocab_size": 258, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2}
    config = AutoConfig.for_model("gpt_neox", **sizes, num_attention_heads=4)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "neox")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "neox")
    run = a_trainer(tmp_path / "neox", engine="unsloth").train(dataset, steps=2)
    result = result_of(service.store.find(run.run_id))
    assert result["engine"] == "autograd" and "in its environment it said" in str(result["engine_reason"])
