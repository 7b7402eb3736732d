"""Time from a chat file to `input_ids` and `labels`: this package compared with TRL in one run.

    python benchmarks/data_preparation.py MODEL_FOLDER [--rows 20000] [--rounds 3]

Both read the same file of OpenAI chat rows (prose of installed docstrings, each paragraph once) with the same
tokenizer, which must be a ChatML one such as SmolLM2's. TRL is timed from `load_dataset` to a trainer with a
prepared dataset: once with its defaults (no loss mask, its fastest case), and once with the same result (a
mask of the assistant turns; its template gets `{% generation %}` marks and renders the same text). This
package is timed from the file to stored examples with that mask. Rounds alternate, so that other load on the
machine affects all; the best of each counts. Output: rows per second and CPU time of each, and the ratios.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import os
import random
import re
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from backpropagate.training.config.specs import DataGroup
from backpropagate.training.data.prepare import prepare

MARKED = """{% for message in messages %}
{% if loop.first and message['role'] != 'system' %}{{ SYSTEM }}{% endif %}
{{ '<|im_start|>' + message['role'] + '\\n' -}}
{% if message['role'] == 'assistant' %}
{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}
{% else %}
{{ message['content'] + '<|im_end|>' -}}
{% endif %}
{{ '\\n' -}}
{% endfor %}"""
"""ChatML with marks around assistant turns; `SYSTEM` is the start of the model's own template."""


class Seconds(NamedTuple):
    """Wall-clock time, and CPU time of this process and its children."""

    wall: float
    cpu: float


def now() -> Seconds:
    return Seconds(time.perf_counter(), sum(os.times()[:4]))


def since(start: Seconds) -> Seconds:
    return Seconds(now().wall - start.wall, now().cpu - start.cpu)


def paragraphs() -> Iterator[str]:
    """English prose: the paragraphs of the docstrings of all installed Python files, each once."""
    seen: set[str] = set()
    import torch

    folders = [Path(sysconfig.get_paths()["stdlib"]), Path(torch.__file__).parent.parent]
    for path in sorted({path for folder in folders for path in folder.rglob("*.py")}):
        for docstring in re.findall(r'"""(.*?)"""', path.read_text("utf-8", "ignore"), re.DOTALL):
            for paragraph in docstring.split("\n\n"):
                text = " ".join(paragraph.split())
                if text not in seen and is_prose(text):
                    seen.add(text)
                    yield text


def is_prose(text: str) -> bool:
    letters = sum(letter.isalpha() or letter == " " for letter in text)
    return len(text) > 60 and letters > 0.9 * len(text) and max(map(len, text.split())) < 30


def write_rows(path: Path, rows: int) -> int:
    """Writes at most `rows` conversations of one to three exchanges; returns their number."""
    random.seed(1)
    texts = paragraphs()
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            turns: list[dict[str, str]] = []
            for _ in range(random.choice([1, 1, 2, 3])):
                asked, *answer = [*itertools.islice(texts, random.choice([2, 3, 4]))] or [""]
                turns.append({"role": "user", "content": asked[:300]})
                turns.append({"role": "assistant", "content": "\n\n".join(answer)})
            if not turns[-1]["content"]:
                return number
            file.write(json.dumps({"messages": turns}) + "\n")
    return rows


def tiny_model(tokenizer: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes))


def with_marks(tokenizer: Any) -> Any:
    """The tokenizer with a template that renders the same text and marks assistant turns for TRL."""
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    system = text[: text.index("<|im_start|>user")]
    marked = copy.deepcopy(tokenizer)
    marked.chat_template = MARKED.replace("SYSTEM", repr(system))
    assert marked.apply_chat_template(turns, tokenize=False) == text, "not a ChatML tokenizer"
    return marked


def trl_seconds(path: Path, tokenizer: Any, model: Any, folder: Path, *, mask: bool = False) -> Seconds:
    from datasets import load_dataset
    from trl import SFTConfig, SFTTrainer

    settings = SFTConfig(
        output_dir=str(folder / "trl"),
        max_length=2048,
        assistant_only_loss=mask,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        disable_tqdm=True,
    )
    start = now()
    dataset = load_dataset("json", data_files=str(path), split="train", cache_dir=str(folder / "datasets"))
    trainer = SFTTrainer(model=model, args=settings, train_dataset=dataset, processing_class=tokenizer)
    assert {"input_ids", "labels"} <= set(trainer.train_dataset.column_names)
    return since(start)


def our_seconds(path: Path, tokenizer: Any, cache: Path) -> Seconds:
    start = now()
    prepared = prepare(DataGroup(source=str(path)), tokenizer, cache=cache)
    assert len(prepared.train) and prepared.train[0].labels
    return since(start)


def main() -> None:
    from transformers import AutoTokenizer

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = tiny_model(tokenizer)
    marked = with_marks(tokenizer)
    times: dict[str, list[Seconds]] = {"trl": [], "trl with mask": [], "first": [], "cached": []}
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "chats.jsonl"
        rows = write_rows(path, arguments.rows)
        size = path.stat().st_size / 1e6
        for number in range(arguments.rounds):
            folder = Path(name) / str(number)
            times["trl"].append(trl_seconds(path, tokenizer, model, folder / "plain"))
            times["trl with mask"].append(trl_seconds(path, marked, model, folder / "masked", mask=True))
            times["first"].append(our_seconds(path, tokenizer, folder / "cache"))
            times["cached"].append(our_seconds(path, tokenizer, folder / "cache"))
    best = {name: Seconds(*map(min, zip(*values, strict=True))) for name, values in times.items()}
    for name, seconds in best.items():
        speed = f"{rows / seconds.wall:10,.0f} rows/s {size / seconds.wall:8.2f} MB/s"
        print(f"{name:15}{speed} {seconds.cpu:8.2f} s CPU", file=sys.stdout)
    for name, rival in itertools.product(("first", "cached"), ("trl", "trl with mask")):
        wall, cpu = best[rival].wall / best[name].wall, best[rival].cpu / max(0.01, best[name].cpu)
        print(
            f"{name}: {wall:.1f} times the speed of {rival}, at 1/{cpu:.1f} of its CPU time", file=sys.stdout
        )


if __name__ == "__main__":
    main()
