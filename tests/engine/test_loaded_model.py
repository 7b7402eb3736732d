"""A model that is opened once: trained, measured, asked, its adapter read and set."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rarer import rarer
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from backpropagate.training.config.specs import EvaluationGroup, LoraGroup
from backpropagate.training.engine.autograd.engine import AutogradStep
from backpropagate.training.engine.generate import encoded, stop_tokens
from backpropagate.training.engine.loaded_model import LoadedModel, StepModel
from backpropagate.training.engine.loop.checkpoints import Checkpoints
from backpropagate.training.engine.open_model import open_model
from backpropagate.training.engine.packed.engine import load_packed_step
from backpropagate.training.engine.plan import Data, Example, Plan
from backpropagate.training.engine.questions import ask_before_and_after
from backpropagate.training.events import Phase, never_stop, no_report
from backpropagate.training.models.transformers_config import transformers_config

from . import conftest
from .conftest import Events, a_plan

PROMPTS = ["What is zorvex?", [{"role": "user", "content": "Say it."}], "a", "one two three four"]
LEARNS = {"steps": 12, "batch_size": 4, "learning_rate": 5e-2, "threads": 1}


@pytest.fixture
def data(examples: Callable[..., list[Example]]) -> Data:
    lengths = [6 + 7 * i % 25 for i in range(16)]
    return Data(examples(*lengths, vocab=20), examples(20, 9, seed=9, vocab=20))


@pytest.fixture
def base(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy, so that a test may take it away."""
    return shutil.copytree(tiny_model, tmp_path / "base")


def trained(plan: Plan, data: Data, folder: Path) -> LoadedModel:
    model = open_model(plan, no_report)
    model.train(data, no_report, never_stop, Checkpoints(folder / "checkpoints"))
    return model


def by_transformers(base: Path, adapter: Path | None, prompts: list[Any]) -> list[str]:
    """Greedy answers one by one, loaded from the disk."""
    from peft import PeftModel

    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter))
    model.eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(base)
    answers: list[str] = []
    for prompt in prompts:
        ids = torch.tensor([encoded(tokenizer, prompt)])
        stops = sorted(stop_tokens(model, tokenizer))
        out = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False,
            eos_token_id=stops, pad_token_id=stops[0],
        )  # fmt: skip
        answers.append(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip())
    return answers


@pytest.mark.parametrize("engine", ["packed", "autograd", rarer("trl")])
def test_the_answers_are_those_of_the_saved_adapter_and_nothing_is_loaded_again(
    engine: str, base: Path, data: Data, tmp_path: Path
) -> None:
    adapter = tmp_path / "adapter"
    plan = a_plan(model=base, adapter=adapter, engine=engine, lora=LoraGroup(r=4, alpha=8), **LEARNS)
    model = trained(plan, data, tmp_path)
    before, after = by_transformers(base, None, PROMPTS), by_transformers(base, adapter, PROMPTS)
    assert before != after
    for weights in base.glob("*.safetensors"):
        weights.unlink()
    assert model.generate(PROMPTS, max_new_tokens=24) == after
    assert model.generate(PROMPTS, max_new_tokens=24, adapter=False) == before
    assert model.generate(PROMPTS, max_new_tokens=24) == after


FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "qwen2, tied": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2, yarn": (
        "qwen2",
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0,
                             "original_max_position_embeddings": 16}},
    ),
    "qwen3": ("qwen3", {"head_dim": 16}),
    "mistral with a window": ("mistral", {"sliding_window": 8}),
    "smollm3": ("smollm3", {"no_rope_layers": [1, 0]}),
    "gemma 2": ("gemma2", {"head_dim": 16}),
    "gemma 3, untied": ("gemma3_text", {"head_dim": 16, "tie_word_embeddings": False}),
    "gemma 4": (
        "gemma4_text",
        {"head_dim": 16, "global_head_dim": 32, "hidden_size_per_layer_input": 24, "num_hidden_layers": 4,
         "vocab_size_per_layer_input": 128, "num_kv_shared_layers": 2,
         "layer_types": ["sliding_attention", "full_attention"] * 2},
    ),
    "phi 3": ("phi3", {}),
    "olmo 2": ("olmo2", {}),
    "olmo 3": ("olmo3", {"layer_types": ["sliding_attention", "full_attention"]}),
    "granite": ("granite", {"embedding_multiplier": 3.0}),
    "glm 4": ("glm4", {"head_dim": 16}),
    "ministral 3": ("ministral3", {"head_dim": 16}),
    "ernie 4.5": ("ernie4_5", {"head_dim": 16}),
    "hunyuan": ("hunyuan_v1_dense", {"head_dim": 16}),
    "exaone 4": ("exaone4", {"layer_types": ["sliding_attention", "full_attention"]}),
    "cohere 2": ("cohere2", {}),
}  # fmt: skip


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_packed_weights_as_a_transformers_model_are_the_loaded_ones(
    family: str, precision: str, saved: Callable[[Any], Path], tmp_path: Path
) -> None:
    kind, overrides = FAMILIES[family]
    folder = saved(conftest.tiny_model(kind, **overrides))
    lora = LoraGroup(r=4, alpha=8, rslora=True)
    step = load_packed_step(a_plan(model=folder, adapter=tmp_path, lora=lora, precision=precision))
    torch.manual_seed(1)
    step.lora.values.normal_(0, 0.05)
    step.decoder.device = torch.device("cpu:0")  # its tensors say "cpu", as those of "cuda" say "cuda:0"
    view = step.peft_model()
    # With its config: SDPA drops Gemma 2's soft caps in transformers 5.17.
    options: dict[str, Any] = {"config": transformers_config(folder), "dtype": getattr(torch, precision)}
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, **options)
    ids = torch.arange(3, 33)[None]
    with torch.no_grad():
        adapted = view(input_ids=ids).logits
        with view.disable_adapter():
            assert torch.allclose(view(input_ids=ids).logits, loaded(input_ids=ids).logits, atol=1e-5)
    assert not torch.allclose(adapted, loaded(input_ids=ids).logits, atol=1e-2)
    for name, theirs in loaded.named_buffers():
        ours = view.get_buffer(f"base_model.model.{name}")
        assert torch.equal(ours, theirs) and ours.dtype == theirs.dtype, name
    embedding = view.get_input_embeddings().weight
    assert embedding.data_ptr() == step.decoder.embedding.data_ptr()


def one_by_one(model: Any, examples: list[Example]) -> list[tuple[float, int]]:
    found: list[tuple[float, int]] = []
    for example in examples:
        logits = model(input_ids=torch.tensor([example.input_ids]), use_cache=False).logits[0, :-1]
        labels = torch.tensor(example.labels[1:])
        total = F.cross_entropy(logits, labels, reduction="sum", ignore_index=-100)
        found.append((total.item(), int((labels != -100).sum())))
    return found


@pytest.mark.parametrize("side", ["packed", "autograd, packed rows", "autograd, padded rows"])
def test_the_loss_of_each_example_is_that_of_the_example_alone(
    side: str, examples: Callable[..., list[Example]], saved: Callable[[Any], Path], tmp_path: Path
) -> None:
    folder = saved(conftest.tiny_model("qwen2"))
    engine = side.split(",")[0]
    plan = a_plan(
        model=folder, adapter=tmp_path, engine=engine, lora=LoraGroup(r=4, alpha=8), micro_batch_tokens=64
    )
    model = open_model(plan, no_report)
    assert isinstance(model, StepModel)
    model.step.row_multiple = 16  # so that rows have a fill as they do on a GPU
    if isinstance(model.step, AutogradStep):
        assert model.step.packs
        model.step.packs = side == "autograd, packed rows"
    torch.manual_seed(1)
    values = torch.randn_like(model.adapter_values()) * 0.05
    model.set_adapter_values(values)
    assert torch.equal(model.adapter_values(), values)
    made = [*examples(17, 9, 30, 2, 41), Example([5, 6, 7], [-100] * 3), *examples(12, 90, seed=4)]
    losses = model.losses(made)
    with torch.no_grad():
        expected = one_by_one(model.step.peft_model(), made)
    assert [loss.label_tokens for loss in losses] == [count for _, count in expected]
    assert [loss.total for loss in losses] == pytest.approx([total for total, _ in expected], rel=1e-5)
    assert model.losses([]) == []


def test_the_model_holds_the_adapter_that_was_written_also_after_early_stopping(
    base: Path, data: Data, tmp_path: Path
) -> None:
    wild = {**LEARNS, "steps": 40, "learning_rate": 0.3, "lr_scheduler": "constant"}
    plan = a_plan(model=base, adapter=tmp_path / "adapter", eval_every=2, patience=2, **wild)
    model = open_model(plan, no_report)
    outcome = model.train(data, no_report, never_stop, Checkpoints(tmp_path / "c"))
    assert outcome.status == "early_stopped" and outcome.best_step != outcome.steps
    again = open_model(plan.changed(continue_from=plan.adapter), no_report)
    assert torch.equal(model.adapter_values(), again.adapter_values())
    losses = model.losses(data.held_out)
    mean = sum(loss.total for loss in losses) / sum(loss.label_tokens for loss in losses)
    assert mean == pytest.approx(outcome.eval_loss, rel=1e-5)


BY_BITSANDBYTES = "autograd, in 4 bits"
ENGINES: dict[str, dict[str, Any]] = {
    "packed": {"engine": "packed"},
    "packed, with its base in 4 bits": {"engine": "packed", "load_in_4bit": True},
    "autograd": {"engine": "autograd"},
    "autograd, recomputing": {"engine": "autograd", "recompute": "everything"},
    BY_BITSANDBYTES: {"engine": "autograd", "load_in_4bit": True},
}


@pytest.mark.filterwarnings("ignore")  # bitsandbytes' own
@pytest.mark.parametrize(
    "settings",
    [pytest.param(name, marks=() if name == "packed" else pytest.mark.slow) for name in ENGINES],
)
def test_a_model_can_be_trained_again_after_it_has_been_asked(
    settings: str, base: Path, data: Data, tmp_path: Path
) -> None:
    if settings == BY_BITSANDBYTES:
        pytest.importorskip("bitsandbytes")
    chosen = {**LEARNS, **ENGINES[settings]}
    plan = a_plan(model=base, adapter=tmp_path / "adapter", lora=LoraGroup(r=4), **chosen)
    model = open_model(plan, no_report)
    values = model.adapter_values()
    curves: list[list[float]] = []
    for folder in ("c", "d"):
        model.set_adapter_values(values)
        events = Events()
        model.train(data, events, never_stop, Checkpoints(tmp_path / folder))
        model.generate(PROMPTS, max_new_tokens=4)
        model.generate(PROMPTS, max_new_tokens=4, adapter=False)
        curves.append(events.losses())
    assert curves[0] == curves[1]


# --- Prompts and where answers end.


def test_questions_are_answered_before_and_after_until_stopped(
    base: Path, data: Data, tmp_path: Path
) -> None:
    plan = a_plan(model=base, adapter=tmp_path / "adapter", lora=LoraGroup(r=4, alpha=8), **LEARNS)
    model = trained(plan, data, tmp_path)
    tokenizer: Any = AutoTokenizer.from_pretrained(base)
    evaluation = EvaluationGroup(questions=[f"Question {i}?" for i in range(7)], max_new_tokens=8)
    phases: list[str] = []
    answers = ask_before_and_after(
        model, tokenizer, evaluation, lambda event: phases.append(event.model_dump()["message"]), never_stop
    )
    assert [answer.question for answer in answers] == evaluation.questions
    assert any(answer.before != answer.after for answer in answers)
    assert phases == [
        f"questions {those} of 7: answers {when} training"
        for those in ("1 to 5", "6 to 7")
        for when in ("before", "after")
    ]
    stop = iter([False, True])
    fewer = ask_before_and_after(model, tokenizer, evaluation, no_report, lambda: next(stop))
    assert fewer == answers[:5]


@pytest.fixture
def tokenizer(base: Path) -> Any:
    loaded: Any = AutoTokenizer.from_pretrained(base)
    loaded.add_special_tokens({"additional_special_tokens": ["<|turn_end|>"]})
    return loaded


class Configured:
    """A model as far as `stop_tokens` looks at it."""

    def __init__(self, eos_token_id: int | list[int] | None) -> None:
        self.generation_config = self
        self.eos_token_id = eos_token_id


TEMPLATE = "{% for m in messages %}[{{ m.role }}]{{ m.content }}<|turn_end|>\n{% endfor %}"


def test_an_answer_stops_at_each_end_token_and_where_the_template_ends_a_turn(tokenizer: Any) -> None:
    turn_end = tokenizer.convert_tokens_to_ids("<|turn_end|>")
    tokenizer.chat_template = TEMPLATE
    assert stop_tokens(Configured([7, 9]), tokenizer) == {7, 9, tokenizer.eos_token_id, turn_end}
    assert stop_tokens(Configured(None), tokenizer) == {tokenizer.eos_token_id, turn_end}
    tokenizer.chat_template = TEMPLATE.replace("<|turn_end|>", " and so on")
    assert stop_tokens(Configured(7), tokenizer) == {7, tokenizer.eos_token_id}
    tokenizer.chat_template = "{{ raise_exception('two turns are too many') }}"
    assert stop_tokens(Configured(7), tokenizer) == {7, tokenizer.eos_token_id}
    tokenizer.chat_template = None
    assert stop_tokens(Configured(7), tokenizer) == {7, tokenizer.eos_token_id}


def test_plain_text_gets_the_tokenizers_own_bos_and_a_conversation_the_templates(tokenizer: Any) -> None:
    from tokenizers.processors import TemplateProcessing

    bos, eos = tokenizer.convert_tokens_to_ids("<|turn_end|>"), tokenizer.eos_token_id
    plain = tokenizer("Hello", add_special_tokens=False)["input_ids"]
    tokenizer._tokenizer.post_processor = TemplateProcessing(
        single=f"<|turn_end|> $A {tokenizer.eos_token}",
        special_tokens=[("<|turn_end|>", bos), (tokenizer.eos_token, eos)],
    )
    assert encoded(tokenizer, "Hello") == [bos, *plain]
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    assert encoded(tokenizer, [{"role": "user", "content": "Hello"}]) == plain


def test_opening_says_what_it_loads(base: Path, tmp_path: Path) -> None:
    told: list[Any] = []
    open_model(a_plan(model=base, adapter=tmp_path), told.append)
    assert told == [Phase(phase="loading", message="loading base")]
