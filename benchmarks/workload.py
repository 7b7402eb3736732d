"""What the benchmarks share: Qwen2.5 shapes, the lengths of the examples, and how a side is timed."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import random
import statistics
import string
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault(
    "PYTORCH_ALLOC_CONF", "expandable_segments:True"
)  # for all sides, as our workers have it

PEAK_FLOPS = 790e12
"""What one H200 reaches in a large bf16 matrix product."""

SIZES: dict[str, dict[str, Any]] = {
    "tiny": dict(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=160, vocab_size=2000, tie_word_embeddings=True,
    ),
    "0.5b": dict(
        hidden_size=896, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2,
        intermediate_size=4864, vocab_size=151936, tie_word_embeddings=True,
    ),
    "1.5b": dict(
        hidden_size=1536, num_hidden_layers=28, num_attention_heads=12, num_key_value_heads=2,
        intermediate_size=8960, vocab_size=151936, tie_word_embeddings=True,
    ),
    "7b": dict(
        hidden_size=3584, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4,
        intermediate_size=18944, vocab_size=152064, tie_word_embeddings=False,
    ),
    "14b": dict(
        hidden_size=5120, num_hidden_layers=48, num_attention_heads=40, num_key_value_heads=8,
        intermediate_size=13824, vocab_size=152064, tie_word_embeddings=False,
    ),
    "32b": dict(
        hidden_size=5120, num_hidden_layers=64, num_attention_heads=40, num_key_value_heads=8,
        intermediate_size=27648, vocab_size=152064, tie_word_embeddings=False,
    ),
    "70b": dict(
        hidden_size=8192, num_hidden_layers=80, num_attention_heads=64, num_key_value_heads=8,
        intermediate_size=28672, vocab_size=152064, tie_word_embeddings=False,
    ),
}  # fmt: skip
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "tiny-moe": (
        "qwen3_moe",
        dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
             num_experts=8, num_experts_per_tok=2, moe_intermediate_size=32, vocab_size=2000),
    ),
    "30b-a3b": (
        "qwen3_moe",
        dict(hidden_size=2048, num_hidden_layers=48, num_attention_heads=32, num_key_value_heads=4,
             head_dim=128, num_experts=128, num_experts_per_tok=8, moe_intermediate_size=768,
             norm_topk_prob=True, vocab_size=151936),
    ),
    "gpt-oss-20b": (
        "gpt_oss",
        dict(hidden_size=2880, intermediate_size=2880, num_hidden_layers=24, num_attention_heads=64,
             num_key_value_heads=8, head_dim=64, num_local_experts=32, num_experts_per_tok=4,
             vocab_size=201088),
    ),
    "glm-4.5-air": (
        "glm4_moe",
        dict(hidden_size=4096, intermediate_size=10944, num_hidden_layers=46, num_attention_heads=96,
             num_key_value_heads=8, head_dim=128, n_routed_experts=128, num_experts_per_tok=8,
             moe_intermediate_size=1408, vocab_size=151552),
    ),
    "mixtral-8x7b": ("mixtral", dict(num_local_experts=8)),
    "qwen3-4b": (
        "qwen3",
        dict(hidden_size=2560, intermediate_size=9728, num_hidden_layers=36, num_attention_heads=32,
             num_key_value_heads=8, head_dim=128, vocab_size=151936, tie_word_embeddings=True),
    ),
    "llama3-8b": (
        "llama",
        dict(hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
             num_key_value_heads=8, vocab_size=128256),
    ),
    "gemma3-4b": (
        "gemma3_text",
        dict(hidden_size=2560, intermediate_size=10240, num_hidden_layers=34, num_attention_heads=8,
             num_key_value_heads=4, head_dim=256, sliding_window=1024, vocab_size=262208),
    ),
    "gemma2-2b": ("gemma2", dict()),
    "gemma4-e2b": (
        "gemma4_text",
        dict(hidden_size=1536, intermediate_size=6144, num_hidden_layers=35, num_attention_heads=8,
             num_key_value_heads=1, num_kv_shared_layers=20, use_double_wide_mlp=True,
             layer_types=[*["sliding_attention"] * 4, "full_attention"] * 7, final_logit_softcapping=30.0),
    ),
    "gemma4-e4b": (
        "gemma4_text",
        dict(hidden_size=2560, intermediate_size=10240, num_hidden_layers=42, num_attention_heads=8,
             num_key_value_heads=2, num_kv_shared_layers=18, final_logit_softcapping=30.0),
    ),
    "gemma4-31b": (
        "gemma4_text",
        dict(hidden_size=5376, intermediate_size=21504, num_hidden_layers=60, num_attention_heads=32,
             num_key_value_heads=16, num_global_key_value_heads=4, attention_k_eq_v=True,
             sliding_window=1024, hidden_size_per_layer_input=0, final_logit_softcapping=30.0),
    ),
    "gemma4-26b-a4b": (
        "gemma4_text",
        dict(hidden_size=2816, intermediate_size=2112, num_hidden_layers=30, num_attention_heads=16,
             num_key_value_heads=8, num_global_key_value_heads=2, attention_k_eq_v=True,
             sliding_window=1024, hidden_size_per_layer_input=0, enable_moe_block=True, num_experts=128,
             top_k_experts=8, moe_intermediate_size=704, final_logit_softcapping=30.0),
    ),
    "tiny-gemma4": (
        "gemma4_text",
        dict(hidden_size=64, intermediate_size=160, num_hidden_layers=4, num_attention_heads=4,
             num_key_value_heads=2, head_dim=16, global_head_dim=32, num_kv_shared_layers=2,
             layer_types=["sliding_attention", "full_attention"] * 2, hidden_size_per_layer_input=16,
             vocab_size=2000, vocab_size_per_layer_input=2000),
    ),
    "phi4-mini": (
        "phi3",
        dict(hidden_size=3072, intermediate_size=8192, num_hidden_layers=32, num_attention_heads=24,
             num_key_value_heads=8, partial_rotary_factor=0.75, vocab_size=200064),
    ),
    "glm4-9b": ("glm4", dict()),
    "olmo2-7b": ("olmo2", dict()),
    "granite-8b": (
        "granite",
        dict(hidden_size=4096, intermediate_size=12800, num_hidden_layers=40, num_attention_heads=32,
             num_key_value_heads=8, vocab_size=49155, embedding_multiplier=12.0, residual_multiplier=0.22,
             attention_multiplier=0.0078125, logits_scaling=16.0),
    ),
    "cohere2-7b": (
        "cohere2",
        dict(hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
             num_key_value_heads=8, vocab_size=256000),
    ),
}  # fmt: skip
"""Other families than Qwen2's: `model_type` and entries of the config."""
EXAMPLES_PER_STEP = 8
"""About 4,000 tokens."""


def make_importable() -> None:
    """Let `import backpropagate` find this checkout, whose root is the package, if it is not installed."""
    if importlib.util.find_spec("backpropagate") is not None:
        return
    root = Path(__file__).resolve().parent.parent
    spec = importlib.util.spec_from_file_location(
        "backpropagate", root / "__init__.py", submodule_search_locations=[str(root)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["backpropagate"] = module
    spec.loader.exec_module(module)


def shape_config(size: str, layers: int | None = None) -> Any:
    """The config of one of `SIZES` or `FAMILIES`, with fewer layers if asked for, also by `30b-a3b:8`."""
    from transformers import AutoConfig

    size, _, count = size.partition(":")
    layers = int(count) if count else layers
    if size in FAMILIES:
        kind, entries = FAMILIES[size]
        fewer = {} if layers is None else fewer_layers(entries, layers)
        return AutoConfig.for_model(kind, **{**entries, **fewer})
    config = qwen_config(size)
    if layers is not None:
        config.num_hidden_layers = layers
        config.layer_types = config.layer_types[:layers]
    return config


def fewer_layers(entries: dict[str, Any], layers: int) -> dict[str, Any]:
    """What changes; layers with shared keys and values stay, after layers of both kinds."""
    fewer: dict[str, Any] = {"num_hidden_layers": layers}
    if "layer_types" in entries or entries.get("num_kv_shared_layers"):
        kinds = ("sliding_attention", "full_attention")
        fewer["layer_types"] = [kinds[layer % 2] for layer in range(layers)]
    if entries.get("num_kv_shared_layers"):
        fewer["num_kv_shared_layers"] = max(0, min(layers // 2, layers - 2))
    return fewer


def qwen_config(size: str) -> Any:
    """A Qwen2.5 config of this size."""
    from transformers import Qwen2Config

    return Qwen2Config(
        **SIZES[size],
        max_position_embeddings=32768,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        rms_norm_eps=1e-6,
        use_sliding_window=False,
        bos_token_id=256,
        eos_token_id=258,
        pad_token_id=256,
    )


def write_random_model(folder: Path, size: str) -> Path:
    """A model of this shape with random bf16 weights, on the byte tokenizer of the tests' tiny model.

    Made in a process of its own: the caller's must hold no memory of the card. For the programs that take
    `--model FOLDER`, `python benchmarks/workload.py FOLDER SIZE` writes it once.
    """
    command = [sys.executable, str(Path(__file__)), str(folder), size]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def _write_random_model(folder: Path, size: str) -> None:
    import torch

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
    from tiny_model import build_tiny_model
    from transformers import AutoModelForCausalLM

    build_tiny_model(folder)
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(shape_config(size), dtype=torch.bfloat16)
    (folder / "model.safetensors").unlink()  # the tiny model's would be read instead of several files
    model.save_pretrained(folder, max_shard_size="4GB")  # as published models are


def write_rows(file: Path, count: int = 3000) -> None:
    """Prompts and completions of lognormal lengths, for the byte tokenizer."""
    generator = random.Random(0)
    with file.open("w", encoding="utf-8") as lines:
        for _ in range(count):
            length = int(min(1800, max(16, generator.lognormvariate(math.log(350), 0.9))))
            text = "".join(generator.choices(string.ascii_lowercase, k=length))
            row = {"prompt": text[: length // 2], "completion": text[length // 2 :]}
            lines.write(json.dumps(row) + "\n")


def random_llama(folder: Path, hidden: int, layers: int, *, tied: bool = False) -> Path:
    """A bf16 Llama with random weights, on the byte tokenizer of the tests' tiny model."""
    import torch

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
    from tiny_model import build_tiny_model
    from transformers import LlamaConfig, LlamaForCausalLM

    build_tiny_model(folder)
    shape = LlamaConfig(
        vocab_size=258,
        hidden_size=hidden,
        intermediate_size=hidden * 4,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 128,
        max_position_embeddings=2048,
        eos_token_id=1,
        pad_token_id=1,
        tie_word_embeddings=tied,
        dtype="bfloat16",
    )
    torch.manual_seed(0)
    LlamaForCausalLM(shape).to(torch.bfloat16).save_pretrained(folder)
    return folder


def examples(size: str, count: int = 2000, longest: int = 2048, seed: int = 0) -> list[Any]:
    """Random tokens, 16 to `longest`, lognormal (median 350, sigma 0.9); labels on the second half."""
    generator = random.Random(seed)
    vocab: int = shape_config(size).vocab_size
    from backpropagate.training.data.tokens.example import Example

    made: list[Any] = []
    for _ in range(count):
        length = int(min(longest, max(16, generator.lognormvariate(math.log(350), 0.9))))
        ids = generator.choices(range(300, vocab - 1000), k=length)
        made.append(Example(ids, [-100] * (length // 2) + ids[length // 2 :]))
    return made


@dataclass
class Windows:
    """Times a running training: call `tick` after each optimizer step until `done`.

    The device is waited for only at the ends of the windows. The first step and the warm-up are not in them.

    Args:
        warmup_steps, warmup_s: both must have passed before the first window; seconds after the first step.
        started: when the side began, by the wall clock (its parent's, to include imports).
    """

    cuda: bool
    count: int = 3
    seconds: float = 4.0
    warmup_steps: int = 6
    warmup_s: float = 0.0
    started: float = field(default_factory=time.time)
    first_step_s: float = 0.0
    rates: list[float] = field(default_factory=list[float])
    steps: int = 0
    tokens: int = 0
    _warm: bool = False
    _first_ended: float = 0.0
    _since: float = 0.0
    _window_tokens: int = 0
    _window_steps: int = 0

    @property
    def done(self) -> bool:
        return len(self.rates) >= self.count

    def tick(self, tokens: int) -> None:
        """An optimizer step over `tokens` useful tokens has been given to the device."""
        self.steps += 1
        self.tokens += tokens
        if self.steps == 1:
            self._wait()
            self.first_step_s = time.time() - self.started
            self._first_ended = time.perf_counter()
        if not self._warm:
            self._warm_up()
            return
        self._window_tokens += tokens
        self._window_steps += 1
        if self._window_steps >= 3 and time.perf_counter() - self._since >= self.seconds:
            self._wait()
            self.rates.append(self._window_tokens / (time.perf_counter() - self._since))
            self._open()

    def result(self) -> dict[str, Any]:
        return {
            "useful_tok_s": round(statistics.median(self.rates)),
            "windows": [round(rate) for rate in self.rates],
            "spread": round(max(self.rates) / min(self.rates), 2),
            "first_step_s": round(self.first_step_s, 1),
            "tokens_per_step": round(self.tokens / self.steps),
            "steps": self.steps,
        }

    def _warm_up(self) -> None:
        seconds = time.perf_counter() - self._first_ended
        if self.steps >= self.warmup_steps and seconds >= self.warmup_s:
            self._warm = True
            self._open()

    def _open(self) -> None:
        self._wait()
        self._since = time.perf_counter()
        self._window_tokens = self._window_steps = 0

    def _wait(self) -> None:
        if self.cuda:
            import torch

            torch.cuda.synchronize()


def peaks(cuda: bool) -> dict[str, float]:
    """GiB at most of torch's tensors, and of what torch took from the driver for them."""
    if not cuda:
        return {"peak_gib": 0.0, "reserved_gib": 0.0}
    import torch

    held = {"peak_gib": torch.cuda.max_memory_allocated(), "reserved_gib": torch.cuda.max_memory_reserved()}
    return {name: round(held_bytes / 2**30, 1) for name, held_bytes in held.items()}


def table(rows: list[list[str]]) -> str:
    """Rows under each other, the first one as the head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


if __name__ == "__main__":
    _write_random_model(Path(sys.argv[1]), sys.argv[2])
