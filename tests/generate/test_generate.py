"""Asking a trained model and its base: through Python, the command line and an MCP client."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from finished_runs import finished_run
from mcp import Client
from mcp.types import TextContent
from taught import ANSWERED, SAID
from tiny_lora import change_json
from transformers import GenerationMixin
from waiting import wait_for_phase

from backpropagate import GenerateSpec, Trainer
from backpropagate.cli.main import run
from backpropagate.server.app import build_server
from backpropagate.tools.generate import Generated
from backpropagate.tools.status import run_status
from backpropagate.training.errors import GpuOutOfMemoryError, InputError, RunNotFoundError
from backpropagate.training.next_step import then
from backpropagate.training.runs.folder import RunFolder, Status
from backpropagate.training.runs.view import view
from backpropagate.training.service import TrainingService

SAMPLED = {"temperature": 2.0, "max_new_tokens": 12, "compare_base": False}


@pytest.fixture
def trainer(tiny_model: Path, home: Path) -> Trainer:
    return Trainer(str(tiny_model), threads=1)


def test_a_tuned_model_answers_as_trained_and_ends_its_turn_and_its_base_answers_beside_it(
    trainer: Trainer, taught: RunFolder
) -> None:
    first, second = trainer.generate([SAID, SAID], taught.run_id, max_new_tokens=20)
    assert first == second and first.prompt == SAID
    assert first.tuned and (first.tuned.text, first.tuned.stopped) == (ANSWERED, True)
    assert first.tuned.tokens == len(ANSWERED) + 1  # bytes, and the end of the turn
    assert first.base and first.base.text != ANSWERED and not first.base.stopped and first.base.tokens == 20


def test_an_answer_ends_where_the_template_ends_a_turn_when_the_models_settings_name_another_token(
    trainer: Trainer, taught: RunFolder, tiny_model: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(tiny_model, tmp_path / "base")
    change_json(base / "generation_config.json", eos_token_id=7, repetition_penalty=5.0)
    change_json(taught.adapter_path / "tokenizer_config.json", eos_token="!")
    adapter = shutil.copytree(taught.adapter_path, tmp_path / "adapter")
    change_json(adapter / "adapter_config.json", base_model_name_or_path=str(base))
    (answer,) = trainer.generate(SAID, adapter, max_new_tokens=20)
    assert answer.tuned and (answer.tuned.text, answer.tuned.stopped) == (ANSWERED, True)


def test_samples_of_one_seed_are_equal_and_those_of_another_differ(
    trainer: Trainer, taught: RunFolder
) -> None:
    def said(seed: int) -> list[str]:
        answers = trainer.generate(["Hello", "Which?"], taught.run_id, seed=seed, **SAMPLED)  # type: ignore[arg-type]
        return [answer.tuned.text for answer in answers if answer.tuned]

    assert said(1) == said(1) != said(2)


def test_a_model_without_an_adapter_or_a_template_continues_plain_text_and_says_so(
    trainer: Trainer, home: Path, tiny_model: Path, tmp_path: Path
) -> None:
    plain = shutil.copytree(tiny_model, tmp_path / "plain")
    (plain / "chat_template.jinja").unlink()
    (answer,) = trainer.generate("Once", plain, system="Be brief.", max_new_tokens=600)
    assert answer.tuned is None and answer.base and 0 < answer.base.tokens <= 508
    (asked,) = (RunFolder(path) for path in home.glob("runs/*"))
    no_template, shorter = asked.state().warnings
    assert "no chat template" in no_template and "system message is not used" in no_template
    assert "at most 508 tokens, not max_new_tokens=600" in shorter


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"prompts": ["x" * 600]}, "prompts[0] has 6"),
        ({"prompts": []}, "prompts"),
        ({"prompts": ["a"], "max_new_tokens": 5000}, "max_new_tokens"),
        ({"prompts": ["a"], "temperature": -1.0}, "temperature"),
    ],
)
def test_a_request_that_cannot_be_answered_is_refused_with_its_argument(
    trainer: Trainer, taught: RunFolder, given: dict[str, object], said: str
) -> None:
    with pytest.raises(InputError) as refused:
        trainer.generate(source=taught.run_id, **given)  # type: ignore[arg-type]
    assert said in refused.value.message


def test_what_is_no_model_and_an_adapter_of_unknown_entries_are_refused(
    trainer: Trainer, taught: RunFolder
) -> None:
    with pytest.raises(RunNotFoundError):
        trainer.generate(SAID, "no-such-run")
    config = taught.adapter_path / "adapter_config.json"
    change_json(config, megatron_config={"a": 1})
    with pytest.raises(InputError, match="megatron_config"):
        trainer.generate(SAID, taught.run_id)
    change_json(config, megatron_config=None, target_modules=["q_proj"])
    with pytest.raises(InputError, match="in the file and None in PEFT"):
        trainer.generate(SAID, taught.run_id)


def test_a_base_that_was_exchanged_is_refused_unless_it_is_allowed(
    trainer: Trainer, taught: RunFolder, tiny_model: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(tiny_model, tmp_path / "other")
    change_json(other / "config.json", rms_norm_eps=0.5)
    change_json(taught.adapter_path / "adapter_config.json", base_model_name_or_path=str(other))
    with pytest.raises(InputError, match="is not the one that was trained on"):
        trainer.generate(SAID, taught.adapter_path)
    assert trainer.generate(SAID, taught.adapter_path, allow_other_base=True, max_new_tokens=2)


def test_a_stop_ends_within_a_token_and_keeps_the_answers_that_are_done(
    trainer: Trainer, taught: RunFolder
) -> None:
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 30

    answers = trainer.generate(
        [SAID] * 20, taught.run_id, max_new_tokens=400, compare_base=False, should_stop=should_stop
    )
    assert 0 < len(answers) < 20 and answers[0].tuned and answers[0].tuned.text == ANSWERED
    assert asked < 40


def test_a_chat_keeps_the_conversation_until_it_is_reset_and_is_recorded(
    taught: RunFolder, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{SAID}\n/reset\n{SAID}\n{'x' * 600}\n\n"))
    assert run(["chat", taught.run_id, "--base", "--max-new-tokens", "9", "--device", "cpu"]) == 0
    shown = capsys.readouterr()
    assert shown.out.count(f"tuned:\n    {ANSWERED}\n") == 2 and shown.out.count("base (cut at 9") == 2
    assert "Loading weights" not in shown.err and "gemm_4bit" not in shown.err
    assert "A new conversation." in shown.err and "tokens; the model has a context of 512" in shown.err
    (talked,) = [path for path in home.glob("runs/*generate*")]
    state = RunFolder(talked).state()
    assert state.status is Status.COMPLETED and state.result and len(state.result.answered) == 2


@pytest.mark.anyio
async def test_an_mcp_client_asks_a_run_once_for_an_equal_request_and_cancels_another(
    taught: RunFolder, kept: None, service: TrainingService
) -> None:
    asked = {"source": taught.run_id, "prompts": [SAID], "max_new_tokens": 9, "wait_s": 300}
    async with Client(build_server(service)) as client:
        first = await client.call_tool("generate", asked)
        again = await client.call_tool("generate", asked)
        refused = await client.call_tool("generate", {**asked, "prompts": ["x" * 600]})
        long = {**asked, "prompts": ["Hi"] * 32, "max_new_tokens": 500, "wait_s": 0}
        started = await client.call_tool("generate", long)
        run_id = (started.structured_content or {})["run_id"]
        wait_for_phase(service.store.find(run_id), "generating")
        await client.call_tool("cancel_run", {"run_id": run_id})
        cancelled = await client.call_tool("get_run", {"run_id": run_id, "wait_s": 300})
    assert first.structured_content and isinstance(first.content[0], TextContent)
    (answer,) = first.structured_content["untrusted_answers"]
    assert answer["after"] == ANSWERED != answer["before"]
    assert "Cut at the maximum length: prompt 1." in first.content[0].text
    assert again.structured_content
    assert again.structured_content["run_id"] == first.structured_content["run_id"]
    assert refused.is_error and isinstance(refused.content[0], TextContent)
    assert "[INPUT_" in refused.content[0].text and "prompts[0] has 6" in refused.content[0].text
    assert cancelled.structured_content and cancelled.structured_content["status"] == "cancelled"


def test_a_lack_of_memory_names_the_request_that_needs_less(
    trainer: Trainer, taught: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = GenerationMixin.generate

    def alone(self: Any, *, input_ids: torch.Tensor, **more: Any) -> Any:
        if len(input_ids) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return real(self, input_ids=input_ids, **more)

    def never(self: Any, **_: Any) -> Any:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(GenerationMixin, "generate", alone)
    assert len(trainer.generate([SAID] * 3, taught.run_id, max_new_tokens=9)) == 3
    monkeypatch.setattr(GenerationMixin, "generate", never)
    with pytest.raises(GpuOutOfMemoryError, match="ran out while answering") as refused:
        trainer.generate(SAID, taught.run_id, max_new_tokens=64)
    assert refused.value.next == then("generate", source=taught.run_id, prompts=..., max_new_tokens=32)


def test_an_assistant_gets_answers_with_their_lines_and_is_told_where_the_rest_is(
    service: TrainingService, tiny_model: Path
) -> None:
    model = {"name": str(tiny_model)}
    spec = GenerateSpec.model_validate({"model": model, "prompts": ["Hi"]})
    reply = {"text": "one\ntwo " + "x" * 9000, "tokens": 9, "stopped": True}
    result = {"summary": "1 of 1 prompts answered.", "answers": [{"prompt": "Hi", "base": reply}]}
    asked = finished_run(service.store, spec, result)
    shown = Generated.of(view(asked, asked.state()), None)
    (answer,) = shown.untrusted_answers
    assert answer["before"].startswith("one\ntwo xxx") and 4_900 < len(answer["before"]) < 5_100
    assert 'get_run has more with detail="full"' in shown.text() and "one two xxx" in shown.text()
    (whole,) = run_status(view(asked, asked.state()), whole=True).untrusted_answers
    assert whole.before == f"one two {'x' * 9000}"
