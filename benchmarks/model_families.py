"""Every causal language model of transformers, small and random: how it trains, and whether it is exported.

Each is trained for three steps. Its adapter must then load with plain PEFT and give the same logits.

    python benchmarks/model_families.py [--write docs/models.md] [TYPE ...]
    python benchmarks/model_families.py --device cuda [TYPE ...]      in bf16, against plain PEFT in fp32
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from small_shapes import small_sizes
from torch import Tensor
from torch.nn import functional as F

from backpropagate.training.config.specs import LoraGroup
from backpropagate.training.engine.loop.batch import packed_batch
from backpropagate.training.engine.loop.checkpoints import Checkpoints
from backpropagate.training.engine.lora_parameters import LoraParameters
from backpropagate.training.engine.open_model import open_model
from backpropagate.training.engine.plain_peft import read_with_peft
from backpropagate.training.engine.plan import Data, Example, Plan
from backpropagate.training.engine.select_engine import select_engine
from backpropagate.training.errors import BackpropagateError
from backpropagate.training.events import never_stop, no_report
from backpropagate.training.export.gguf.model_config import model_config
from backpropagate.training.models.causal import require_causal
from backpropagate.training.models.multimodal import language_model_class
from backpropagate.training.models.quiet_loading import quiet_loading

LARGEST = 40_000_000
"""Weights; a type that stays larger when it is made small is not tried."""
BEGIN, END = "<!-- table:begin -->", "<!-- table:end -->"
MOST_S = 90
"""Of a type, the start of its process included."""
WITH_IMAGES = (
    *("idefics3", "internvl", "llava", "mistral3", "paligemma", "qwen2_5_vl", "qwen3_vl"),
    "smolvlm",
)
"""Multimodal types that are tried besides those with a causal language model of their own."""
ALIKE = {"cpu": 1e-4, "cuda": 0.05}
"""In standard deviations of the logits. A CPU computes in fp32, a GPU in bf16."""
LORA = LoraGroup(r=4, alpha=8)


class Row(NamedTuple):
    kind: str
    engine: str
    reason: str
    adapter: str
    gguf: str


def small(kind: str, into: Path) -> str | None:
    """Write a small random model; or why there is none."""
    from transformers import AutoConfig

    usual = AutoConfig.for_model(kind)
    config = AutoConfig.for_model(kind, **small_sizes(kind, usual.to_dict()))
    auto = language_model_class(config)
    with torch.device("meta"):
        count = sum(p.numel() for p in auto.from_config(config).parameters())
    if count > LARGEST:
        return f"{count / 1e6:.0f} million weights with small sizes"
    torch.manual_seed(0)
    with quiet_loading():
        model = auto.from_config(config).float()
    for (
        name,
        weight,
    ) in model.named_parameters():  # as they are made, tokens would hardly depend on each other
        if weight.dim() < 2:
            weight.data += 0.1 * torch.randn_like(weight)
        elif not name.endswith("A_log"):
            weight.data.normal_(0, max(0.1, weight.shape[-1] ** -0.5))
    model.save_pretrained(into)
    return None


def examples() -> list[Example]:
    """With a label at every token but the first."""
    made = torch.Generator().manual_seed(0)
    rows = (torch.randint(3, 128, (length,), generator=made).tolist() for length in (17, 9, 30, 12))
    return [Example(ids, [-100, *ids[1:]]) for ids in rows]


def tried(kind: str, folder: Path, device: str) -> Row:
    base, adapter = folder / "model", folder / "adapter"
    require_causal({"model_type": kind})
    why_not = small(kind, base)
    if why_not:
        return Row(kind, "not tried", why_not, "", "")
    engine, reason = select_engine(base, LORA, load_in_4bit=False, max_seq_length=64)
    precision = "bfloat16" if device == "cuda" else "float32"
    settings = {"precision": precision, "steps": 3, "batch_size": 4, "learning_rate": 1e-2, "threads": 1}
    plan = Plan.from_record(
        {"engine": engine, "device": device, "recompute": "nothing", "micro_batch_tokens": 128, **settings}
        | {"model": base, "adapter": adapter, "lora": LORA}
    )
    model: Any = open_model(plan, no_report)
    data = examples()
    model.train(Data(data, []), no_report, never_stop, Checkpoints(folder / "checkpoints"))
    step = model.step
    losses = step.label_losses(packed_batch(data).to(torch.device(device))).cpu()  # of all examples together
    with torch.no_grad():
        ids = torch.tensor([data[2].input_ids], device=device)
        logits = step.peft_model()(input_ids=ids, use_cache=False).logits.float().cpu()
    untaught = without_gradient(step.lora)
    del model, step
    read_with_peft(base, adapter)
    return Row(
        kind,
        engine,
        "" if engine == "packed" else reason + of_decoder(kind),
        compared(losses, logits, plain_peft(base, adapter), data, ALIKE[device]) + untaught,
        exportable(base),
    )


def of_decoder(kind: str) -> str:
    from transformers import AutoConfig

    whole = AutoConfig.for_model(kind).is_encoder_decoder
    return " Only the decoder alone: with an encoder it is refused." if whole else ""


def without_gradient(lora: LoraParameters) -> str:
    """The modules whose B is still 0."""
    zero = {
        name.rpartition(".lora_B")[0].rpartition(".")[2]
        for name, matrix in lora.matrices(lora.values).items()
        if ".lora_B" in name and not matrix.any()
    }
    return f"; no gradient on {', '.join(sorted(zero))}" if zero else ""


def plain_peft(base: Path, adapter: Path) -> Any:
    """By transformers and PEFT alone."""
    from peft import PeftModel
    from transformers import AutoConfig

    auto = language_model_class(AutoConfig.from_pretrained(base))
    return PeftModel.from_pretrained(auto.from_pretrained(base, dtype=torch.float32), str(adapter)).eval()


@torch.no_grad()
def compared(losses: Tensor, logits: Tensor, plain: Any, data: list[Example], alike: float) -> str:
    """Our losses of all tokens and our logits beside those that plain PEFT gives for one example at a time.

    Differences are measured in standard deviations of the logits.
    """
    theirs = [plain(input_ids=torch.tensor([row.input_ids]), use_cache=False).logits for row in data]
    expected = [
        F.cross_entropy(each[0, :-1].float(), torch.tensor(row.labels[1:]), reduction="none")
        for each, row in zip(theirs, data, strict=True)
    ]
    spread = float(theirs[2].std())
    by_loss = float((losses - torch.cat(expected)).abs().max()) / spread
    by_logit = float((logits - theirs[2]).abs().max()) / spread
    if max(by_loss, by_logit) < alike:
        return "loads, equal logits"
    return f"loads, but losses differ by {by_loss:.1e} and logits by {by_logit:.1e}"


def exportable(base: Path) -> str:
    try:
        model_config(base)
    except BackpropagateError as error:
        return "" if "cannot be exported" in error.message else error.message
    return "yes"


def row_of(kind: str, device: str) -> Row:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            return tried(kind, Path(folder), device)
        except BackpropagateError as error:
            return Row(kind, "refused", error.message, "", "")
        except ImportError as error:
            return Row(kind, "not tried", f"transformers needs another package: {str(error).strip()}", "", "")
        except Exception as error:
            return Row(kind, "not tried", f"{type(error).__name__}: {error}", "", "")


def quiet() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    torch.set_num_threads(1)


def tried_in_time(types: list[str], device: str) -> Iterator[Row]:
    """The rows, made in another process, which is replaced where a type takes too long."""
    context = multiprocessing.get_context("spawn")
    pool = context.Pool(1, quiet)
    for kind in types:
        try:
            yield pool.apply_async(row_of, (kind, device)).get(MOST_S)
        except multiprocessing.TimeoutError:
            pool.terminate()
            pool = context.Pool(1, quiet)
            yield Row(kind, "not tried", f"takes more than {MOST_S} s", "", "")
    pool.terminate()


def kinds() -> list[str]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return sorted({*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *WITH_IMAGES})


def table(rows: list[Row]) -> str:
    lines = ["| `model_type` | engine | adapter in plain PEFT | GGUF |", "|---|---|---|---|"]
    for row in rows:
        reason = " ".join(row.reason.split()).replace("|", "\\|")[:160]
        engine = f"{row.engine}: {reason}" if reason else row.engine
        lines.append(f"| `{row.kind}` | {engine} | {row.adapter} | {row.gguf} |")
    return "\n".join(lines)


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("types", nargs="*")
    arguments.add_argument("--write", type=Path)
    arguments.add_argument("--device", default="cpu", choices=ALIKE)
    given = arguments.parse_args()
    rows: list[Row] = []
    for row in tried_in_time(given.types or kinds(), given.device):
        rows.append(row)
        print(*rows[-1], sep=" · ", flush=True)
        if given.write:
            write(rows, given.write)


def write(rows: list[Row], document: Path) -> None:
    """Put the table where the document has it."""
    order = {"packed": 0, "autograd": 1, "refused": 2, "not tried": 3}
    made = table(sorted(rows, key=lambda row: (order[row.engine], row.kind)))
    before, _, rest = document.read_text("utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    document.write_text(f"{before}{BEGIN}\n{made}\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
