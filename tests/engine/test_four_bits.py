"""A base in 4 bits on the packed step: the bits of bitsandbytes, and the gradients of PEFT on them."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from multimodal_models import multimodal_model
from rank_threads import OnThreads

from backpropagate.training.config.specs import LoraGroup
from backpropagate.training.engine.generate import Sampling
from backpropagate.training.engine.loaded_model import StepModel
from backpropagate.training.engine.loop.batch import packed_batch
from backpropagate.training.engine.loop.checkpoints import Checkpoints
from backpropagate.training.engine.open_model import open_model
from backpropagate.training.engine.packed.decoder import PackedDecoder
from backpropagate.training.engine.packed.engine import load_packed_step
from backpropagate.training.engine.packed.nf4 import Nf4Shape, Nf4Weight, dynamic_code
from backpropagate.training.engine.packed.open_decoder import load_decoder
from backpropagate.training.engine.packed.quantised_weights import nf4_weights
from backpropagate.training.engine.plan import Data, Example, Plan
from backpropagate.training.engine.run import run_engine
from backpropagate.training.engine.select_engine import select_engine
from backpropagate.training.engine.tuned_model import load_tuned_model
from backpropagate.training.errors import ModelLoadError
from backpropagate.training.events import ShouldStop, never_stop, no_report
from backpropagate.training.models.multimodal import language_model_class

from .conftest import Events, a_plan, tiny_model, with_lora
from .test_packed_step_equals_peft import peft_loss_and_gradients, relative

bitsandbytes = pytest.importorskip("bitsandbytes.functional")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # bitsandbytes' own

LORA = LoraGroup(r=4, alpha=8)


def quantised(matrix: torch.Tensor, *, nested: bool = True) -> Nf4Weight:
    shape = Nf4Shape(*matrix.shape, nested=nested)
    parts = {name: torch.empty(size, dtype=kind) for name, (kind, size) in shape.parts().items()}
    weight = Nf4Weight(shape, parts)
    weight.take(matrix)
    return weight


def by_bitsandbytes(matrix: torch.Tensor, *, nested: bool = True) -> tuple[torch.Tensor, Any]:
    return bitsandbytes.quantize_4bit(matrix, compress_statistics=nested, quant_type="nf4")


def state_of(weight: Nf4Weight) -> Any:
    """The state that bitsandbytes needs to dequantise our bits."""
    parts, shape = weight.parts, weight.shape
    outer: dict[str, Any] = {"offset": None, "state2": None}
    if shape.nested:
        inner = bitsandbytes.QuantState(
            parts["nested_absmax"], blocksize=256, code=dynamic_code(torch.device("cpu")), dtype=torch.float32
        )
        outer = {"offset": parts["nested_offset"][0], "state2": inner}
    return bitsandbytes.QuantState(
        parts["absmax"], shape=torch.Size((shape.rows, shape.columns)), blocksize=shape.block,
        code=bitsandbytes.get_4bit_type("nf4", "cpu"), quant_type="nf4", dtype=torch.float32, **outer,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [(48, 80), (128, 48), (7, 10), (640, 320)])
def test_the_bits_are_those_of_bitsandbytes(size: tuple[int, int], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    matrix = (torch.randn(size) * 0.02).to(dtype)
    ours = quantised(matrix)
    packed, state = by_bitsandbytes(matrix)
    assert torch.equal(ours.parts[""], packed.view(-1))
    assert torch.equal(ours.parts["nested_absmax"], state.state2.absmax)
    assert float(ours.parts["nested_offset"]) == float(state.offset)
    # On a CPU bitsandbytes rounds magnitudes to 16 bits first; on a GPU it does not.
    steps = (ours.parts["absmax"].int() - state.absmax.int()).abs()
    assert steps.max() <= 1 and steps.float().mean() < 0.01


def test_magnitudes_that_are_not_quantised_are_those_of_bitsandbytes() -> None:
    matrix = torch.randn(64, 96)
    packed, state = by_bitsandbytes(matrix, nested=False)
    ours = quantised(matrix, nested=False)
    assert torch.equal(ours.parts[""], packed.view(-1))
    assert torch.equal(ours.parts["absmax"], state.absmax)


@pytest.mark.parametrize("nested", [True, False])
def test_bitsandbytes_reads_our_bits_as_we_do(nested: bool) -> None:
    # Rows of whole blocks: bitsandbytes misreads others on a CPU.
    weight = quantised(torch.randn(96, 128), nested=nested)
    theirs = bitsandbytes.dequantize_4bit(weight.parts[""].view(-1, 1), state_of(weight))
    assert torch.equal(weight.dequantised(), theirs)


def test_large_matrices_are_quantised_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = torch.randn(60, 50)
    whole = quantised(matrix)
    monkeypatch.setattr("backpropagate.training.engine.packed.nf4.PIECE", 200)
    pieces = quantised(matrix)
    assert all(torch.equal(part, pieces.parts[name]) for name, part in whole.parts.items())


# --- A decoder in 4 bits.


def in_4bit(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """The model of a folder as transformers and bitsandbytes load it; weights that are stored so stay so."""
    from transformers import AutoConfig, BitsAndBytesConfig

    options = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    stored = "quantization_config" in (folder / "config.json").read_text()
    settings = {} if stored else {"quantization_config": options}
    auto = language_model_class(AutoConfig.from_pretrained(folder))
    return auto.from_pretrained(folder, dtype=dtype, **settings)


def stored_in_4bit(model: Any, folder: Path) -> Path:
    """The folder of a checkpoint that holds its linear layers in 4 bits."""
    model.save_pretrained(folder / "whole")
    in_4bit(folder / "whole").save_pretrained(folder / "nf4")
    return folder / "nf4"


def decoder_of(folder: Path, adapted: Any, precision: Any = "float32", **settings: Any) -> PackedDecoder:
    """The packed decoder of a folder, in 4 bits, with the LoRA values of its PEFT twin."""
    decoder = load_decoder(folder, LORA, precision, "cpu", in_4bit=True, **settings)
    values = dict(adapted.named_parameters())
    for name, matrix in decoder.lora.matrices(decoder.lora.values).items():
        matrix.copy_(values[f"base_model.model.{name}.default.weight"].data)
    decoder.refresh()
    return decoder


def dequantised(model: Any, decoder: PackedDecoder) -> Any:
    """A copy of `model` with the weights that `decoder` computes with."""
    twin = copy.deepcopy(model)
    for name, weight in nf4_weights(decoder).items():
        twin.get_submodule(name).weight.data = weight.dequantised()
    return twin


FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama, tied head": ("llama", {"tie_word_embeddings": True}),
    "llama with all biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "mistral": ("mistral", {"sliding_window": 8}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"head_dim": 16}),
    "smollm3": ("smollm3", {"no_rope_layers": [1, 0]}),
    "phi 3, fused modules": ("phi3", {}),
    "gemma 3": ("gemma3_text", {"head_dim": 16}),
    "cohere 2": ("cohere2", {}),
    "gemma 4": (
        "gemma4_text",
        {"head_dim": 16, "global_head_dim": 32, "hidden_size_per_layer_input": 24, "num_hidden_layers": 3,
         "vocab_size_per_layer_input": 128, "num_kv_shared_layers": 1, "use_double_wide_mlp": True,
         "layer_types": ["sliding_attention", "full_attention", "full_attention"]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("recompute", ["nothing", "gate_up", "everything"])
def test_gradients_are_those_of_peft_on_the_dequantised_weights(
    family: str, recompute: Any, examples: Callable[..., list[Example]], saved: Callable[[Any], Path]
) -> None:
    kind, overrides = FAMILIES[family]
    model = tiny_model(kind, **overrides)
    folder = saved(model)
    decoder = decoder_of(folder, with_lora(model, LORA))
    adapted = with_lora(dequantised(model, decoder), LORA)
    made = examples(17, 9, 30, 2)
    batch = packed_batch(made)
    weight = loss = torch.tensor(1 / batch.label_tokens)
    for _ in range(2):  # the second time the shared buffers hold another layer's weights
        decoder.lora.gradients.zero_()
        loss = decoder.forward_backward(batch, weight, seed=0, recompute=recompute)
    expected, gradients = peft_loss_and_gradients(adapted, made)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert float(decoder.loss(batch) * weight) == pytest.approx(expected, rel=1e-5)
    for name, gradient in decoder.lora.matrices(decoder.lora.gradients).items():
        assert relative(gradient, gradients[f"base_model.model.{name}.default.weight"]) <= 1e-5, name


def test_gradients_are_at_least_as_exact_as_those_of_peft_and_bitsandbytes(
    examples: Callable[..., list[Example]], tmp_path: Path
) -> None:
    model = tiny_model("qwen3", head_dim=16, hidden_size=128, intermediate_size=256)
    folder = stored_in_4bit(model, tmp_path)
    theirs = with_lora(in_4bit(folder), LORA)
    decoder = decoder_of(folder, theirs)
    reference = with_lora(dequantised(model, decoder), LORA)
    made = examples(17, 9, 30, 2)
    _, exact = peft_loss_and_gradients(reference, made)
    _, found = peft_loss_and_gradients(theirs, made)
    batch = packed_batch(made)
    decoder.forward_backward(batch, torch.tensor(1 / batch.label_tokens), seed=0, recompute="nothing")
    ours = {
        f"base_model.model.{name}.default.weight": gradient
        for name, gradient in decoder.lora.matrices(decoder.lora.gradients).items()
    }

    def error(gradients: dict[str, torch.Tensor]) -> float:
        ours, exactly = (torch.cat([g[name].flatten() for name in exact]) for g in (gradients, exact))
        return relative(ours, exactly)

    assert error(ours) <= 1.1 * error(found) + 1e-6


# --- Checkpoints that are stored in 4 bits.


def test_a_checkpoint_in_4_bits_is_read_bit_for_bit(tmp_path: Path) -> None:
    model = tiny_model("llama", hidden_size=128, intermediate_size=64)
    folder = stored_in_4bit(model, tmp_path)
    theirs = in_4bit(folder)
    decoder = load_decoder(folder, LORA, "float32", "cpu", in_4bit=False)
    weights = nf4_weights(decoder)
    assert len(weights) == 14
    for name, weight in weights.items():
        linear = theirs.get_submodule(name)
        assert torch.equal(weight.parts[""], linear.weight.data.view(-1))
        assert torch.equal(weight.parts["absmax"], linear.weight.quant_state.absmax)
        expected = bitsandbytes.dequantize_4bit(linear.weight.data, linear.weight.quant_state)
        assert torch.equal(weight.dequantised(), expected.float())


def test_a_checkpoint_in_4_bits_is_trained_by_the_packed_step(tmp_path: Path) -> None:
    folder = stored_in_4bit(tiny_model("llama"), tmp_path)
    assert select_engine(folder, LORA, load_in_4bit=False, max_seq_length=64)[0] == "packed"


@pytest.mark.parametrize("older", [False, True], ids=["as saved", "older names"])
def test_a_multimodal_checkpoint_in_4_bits_is_read_bit_for_bit(older: bool, tmp_path: Path) -> None:
    folder = stored_in_4bit(multimodal_model("mistral3", {"hidden_size": 64}), tmp_path)
    if older:
        rename_as_before(folder / "model.safetensors")
    assert select_engine(folder, LORA, load_in_4bit=False, max_seq_length=64)[0] == "packed"
    theirs = in_4bit(folder)
    weights = nf4_weights(load_decoder(folder, LORA, "float32", "cpu", in_4bit=False))
    assert len(weights) == 14 and all(name.startswith("model.language_model.layers.") for name in weights)
    for name, weight in weights.items():
        assert torch.equal(weight.parts[""], theirs.get_submodule(name).weight.data.view(-1))


def test_what_gemma_4_holds_in_4_bits_outside_of_layers_is_expanded(tmp_path: Path) -> None:
    kind, overrides = FAMILIES["gemma 4"]
    folder = stored_in_4bit(tiny_model(kind, **overrides, hidden_size=64), tmp_path)
    assert select_engine(folder, LORA, load_in_4bit=False, max_seq_length=64)[0] == "packed"
    theirs = in_4bit(folder).model.per_layer_model_projection.weight
    decoder = load_decoder(folder, LORA, "float32", "cpu", in_4bit=False)
    assert decoder.layer_embeddings is not None
    expected = bitsandbytes.dequantize_4bit(theirs.data, theirs.quant_state)
    assert torch.equal(decoder.layer_embeddings.projection.weight, expected.float())


def rename_as_before(file: Path) -> None:
    """The order of names in checkpoints of before transformers 4.52."""
    from safetensors.torch import load_file, save_file

    older = ("model.language_model.", "language_model.model.")
    tensors = {name.replace(*older): tensor for name, tensor in load_file(file).items()}
    save_file(tensors, file, {"format": "pt"})


def test_another_code_than_nf4s_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = stored_in_4bit(tiny_model("llama"), tmp_path)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight.quant_map"] *= 0.5
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelLoadError, match=r"layers\.1\.mlp\.up_proj .* another kind of 4 bits"):
        load_decoder(folder, LORA, "float32", "cpu", in_4bit=True)


def test_a_state_of_another_shape_is_refused(tmp_path: Path) -> None:
    whole = stored_in_4bit(tiny_model("llama"), tmp_path)
    config = (whole / "config.json").read_text().replace('"intermediate_size": 80', '"intermediate_size": 96')
    (whole / "config.json").write_text(config)
    with pytest.raises(ModelLoadError, match="has shape"):
        load_decoder(whole, LORA, "float32", "cpu", in_4bit=True)


# --- A run in 4 bits, from its plan to the adapter.

LEARNS: dict[str, Any] = {
    "steps": 10, "batch_size": 4, "learning_rate": 2e-2, "lora": LORA, "threads": 1, "load_in_4bit": True,
}  # fmt: skip


@pytest.fixture
def data(examples: Callable[..., list[Example]]) -> Data:
    lengths = [6 + 7 * i % 25 for i in range(16)]
    return Data(examples(*lengths, vocab=20), examples(20, 9, seed=9, vocab=20))


@pytest.fixture
def nf4_folder(tmp_path: Path) -> Path:
    """A small model that is stored in 4 bits, its rows of whole blocks."""
    return stored_in_4bit(tiny_model("qwen2", hidden_size=64, intermediate_size=128), tmp_path)


@pytest.fixture
def tiny_model_files(request: pytest.FixtureRequest) -> Path:
    """The tiny model with a tokenizer that all tests share."""
    return request.getfixturevalue("tiny_model")


def ran(plan: Plan, data: Data, folder: Path, should_stop: ShouldStop = never_stop) -> Events:
    events = Events()
    run_engine(plan, data, events, should_stop, Checkpoints(folder))
    return events


@pytest.mark.parametrize("multimodal", [False, True])
def test_the_adapter_of_a_run_is_what_plain_peft_reads_on_bitsandbytes(
    multimodal: bool, nf4_folder: Path, data: Data, tmp_path: Path
) -> None:
    from peft import PeftModel

    if multimodal:
        whole = multimodal_model("mistral3", {"hidden_size": 64, "intermediate_size": 128})
        nf4_folder = stored_in_4bit(whole, tmp_path / "multimodal")
    plan = a_plan(model=nf4_folder, adapter=tmp_path / "adapter", **LEARNS)
    model = open_model(plan, no_report)
    assert isinstance(model, StepModel)
    outcome = model.train(data, no_report, never_stop, Checkpoints(tmp_path / "c"))
    assert outcome.engine == "packed" and outcome.eval_loss is not None
    assert outcome.eval_loss < (outcome.eval_loss_before or 0) - 0.5
    theirs = PeftModel.from_pretrained(in_4bit(nf4_folder), str(plan.adapter)).eval()
    for module in theirs.modules():  # else bitsandbytes computes in bf16 on a CPU
        module.training = type(module).__name__ == "Linear4bit"
    ids = torch.arange(3, 33)[None]
    with torch.no_grad():
        ours = model.step.peft_model()(input_ids=ids).logits
        assert torch.allclose(ours, theirs(input_ids=ids).logits, atol=1e-4)
    losses = model.losses(data.held_out)
    assert sum(loss.total for loss in losses) / sum(loss.label_tokens for loss in losses) == pytest.approx(
        outcome.eval_loss, rel=1e-5
    )


def test_a_run_in_4_bits_resumes_exactly(nf4_folder: Path, data: Data, tmp_path: Path) -> None:
    plan = a_plan(model=nf4_folder, adapter=tmp_path / "adapter", checkpoint_every_steps=2, **LEARNS)
    whole = ran(plan, data, tmp_path / "whole")
    adapter = (plan.adapter / "adapter_model.safetensors").read_bytes()
    asked = iter(range(100))
    first = ran(plan, data, tmp_path / "c", lambda: next(asked) > 6)
    rest = ran(plan.changed(resume=True), data, tmp_path / "c")
    assert 0 < len(first.losses()) < 10
    assert first.losses() + rest.losses() == whole.losses()
    assert (plan.adapter / "adapter_model.safetensors").read_bytes() == adapter


@pytest.mark.parametrize("multimodal", [False, True])
def test_ranks_that_shard_a_checkpoint_in_4_bits_learn_what_one_does(
    multimodal: bool, nf4_folder: Path, data: Data, tmp_path: Path
) -> None:
    if multimodal:
        whole = multimodal_model("mistral3", {"hidden_size": 64, "intermediate_size": 128})
        nf4_folder = stored_in_4bit(whole, tmp_path / "multimodal")
    plan = a_plan(model=nf4_folder, adapter=tmp_path / "adapter", **LEARNS)
    one, events = ran(plan, data, tmp_path / "one"), Events()
    sharded = plan.changed(resident_layers=1)
    together = OnThreads(2, sharded, data, load_packed_step, events)
    together.model.train(data, events, never_stop, Checkpoints(tmp_path / "two"))
    together.joined()
    assert events.losses() == pytest.approx(one.losses(), abs=1e-5) and len(one.losses()) == 10


def test_no_bitsandbytes_is_needed(
    saved: Callable[[Any], Path], data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved(tiny_model("llama"))
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # importing it raises ImportError
    plan = a_plan(model=folder, adapter=tmp_path / "adapter", **LEARNS)
    events = ran(plan, data, tmp_path / "c")
    assert events.losses()[-1] < events.losses()[0]


def test_a_tuned_model_in_4_bits_is_asked_without_bitsandbytes(
    tiny_model_files: Path, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    plan = a_plan(model=tiny_model_files, adapter=tmp_path / "adapter", **LEARNS)
    model = open_model(plan, no_report)
    model.train(data, no_report, never_stop, Checkpoints(tmp_path / "c"))
    tuned = load_tuned_model(tiny_model_files, plan.adapter, load_in_4bit=True)
    rows = tuned.encoded(["What is zorvex?", "one two"])
    for adapter in (True, False):
        found = tuned.replies(rows, Sampling(8), lambda *_: None, never_stop, adapter=adapter)
        assert [reply.text for reply in found] == model.generate(
            ["What is zorvex?", "one two"], max_new_tokens=8, adapter=adapter
        )
        losses = tuned.losses(data.held_out, adapter=adapter)
        if adapter:
            expected = [loss.total for loss in model.losses(data.held_out)]
            assert [loss.total for loss in losses] == pytest.approx(expected, rel=1e-4)
