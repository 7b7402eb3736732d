"""What the checks of gradients share: a random model, examples, and the gradients of ours and of PEFT."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from workload import make_importable

make_importable()

from backpropagate.training.config.specs import LoraGroup  # noqa: E402
from backpropagate.training.engine.loop.batch import packed_batch  # noqa: E402
from backpropagate.training.engine.packed.adapter_targets import adapter_targets  # noqa: E402
from backpropagate.training.engine.packed.decoder import PackedDecoder  # noqa: E402
from backpropagate.training.engine.plan import Example  # noqa: E402

LORA = LoraGroup(r=16, alpha=16)
LENGTHS = (700, 350, 900, 123, 1500)
GOAL = 1.1


def random_model(config: Any, device: str) -> Any:
    """A bf16 model whose norms and biases are not trivial."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            noise = torch.randn_like(parameter) * 0.1
            parameter.data = parameter.data + noise if "norm" in name else noise
        if config.model_type == "gemma4_text" and name.endswith(("q_norm.weight", "k_norm.weight")):
            parameter.data *= len(parameter) ** -0.25  # nothing else divides its scores by √head_dim
    return model.eval()


def random_examples(vocab: int) -> list[Example]:
    generator = torch.Generator().manual_seed(1)
    made: list[Example] = []
    for length in LENGTHS:
        ids = torch.randint(300, vocab - 500, (length,), generator=generator).tolist()
        made.append(Example(ids, [-100] * (length // 2) + ids[length // 2 :]))
    return made


def our_gradients(decoder: PackedDecoder, examples: list[Example]) -> Iterator[tuple[str, float, Tensor]]:
    """Mode, loss and flat gradients."""
    batch = packed_batch(examples, multiple=64).to(decoder.device)
    weight = torch.full((), 1 / batch.label_tokens, device=decoder.device)
    for mode in ("nothing", "gate_up", "everything"):
        decoder.lora.gradients.zero_()
        loss = decoder.forward_backward(batch, weight, seed=0, recompute=mode)
        yield mode, float(loss), decoder.lora.gradients.clone()


def peft_gradients(
    adapted: Any, decoder: PackedDecoder, examples: list[Example], autocast: bool
) -> tuple[float, Tensor]:
    """Loss and gradients in the layout of ours."""
    device = decoder.device
    labels = sum(label != -100 for example in examples for label in example.labels[1:])
    adapted.zero_grad()
    total = 0.0
    for example in examples:
        ids = torch.tensor([example.input_ids], device=device)
        with torch.autocast(device.type, torch.bfloat16) if autocast else nullcontext():
            logits = adapted(input_ids=ids, use_cache=False).logits[0, :-1].float()
        targets = torch.tensor(example.labels[1:], device=device)
        loss = F.cross_entropy(logits, targets, reduction="sum") / labels
        loss.backward()
        total += loss.item()
        del logits, loss
    flat = torch.empty_like(decoder.lora.gradients)
    for name, place in decoder.lora.matrices(flat).items():
        place.copy_(adapted.get_parameter(f"base_model.model.{name}.default.weight").grad)
    return total, flat


def with_peft(model: Any, decoder: PackedDecoder) -> Any:
    from peft import LoraConfig, get_peft_model

    modules, parameters = adapter_targets(decoder, LORA)
    config = LoraConfig(
        r=LORA.r,
        lora_alpha=LORA.alpha,
        target_modules=list(modules),
        target_parameters=list(parameters) or None,
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(model, config).eval()
    for name, value in decoder.lora.matrices(decoder.lora.values).items():
        adapted.get_parameter(f"base_model.model.{name}.default.weight").data.copy_(value)
    return adapted
