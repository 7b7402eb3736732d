"""What a model remembers of three sets of invented facts that are taught one after the other.

    python benchmarks/continual.py MODEL [--seeds 0 1 2] [--rates 1e-3 5e-4] [--record FILE]

MODEL is a folder with SmolLM2-135M-Instruct. Each set is a task: 8 facts, each asked in 10 ways that are
trained on (some of them held out) and 2 that are not. After each run the questions of every task so far are
asked in those 2 ways; the share of right answers is a[t, i]. Transformers and plain PEFT answer, from the
merged adapters that the multi-run keeps. A record that exists is added to and counts in the tables, so that
seeds can be divided among several processes; `--seeds` without a number only prints the tables.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from workload import make_importable, table

make_importable()
os.environ.setdefault("BACKPROPAGATE_LOG_LEVEL", "ERROR")

import torch  # noqa: E402
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from torch.nn.functional import cross_entropy  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from backpropagate import Trainer  # noqa: E402
from backpropagate.training.evaluation.general_probe import QUESTIONS  # noqa: E402
from backpropagate.training.merging.algebra import orthogonal_init_A  # noqa: E402
from backpropagate.training.merging.slao import SLAOMerger  # noqa: E402

Weights = dict[str, torch.Tensor]
Record = dict[str, Any]

SYLLABLES = (
    "bra", "cul", "dor", "fen", "gim", "hov", "jast", "kel", "lum", "mir", "nov", "pex", "quil", "rud", "sab",
    "tov", "ulm", "vex", "wix", "yor", "zan",
)  # fmt: skip
RELATIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "colour": (
        "the colour of {}",
        ("violet", "amber", "scarlet", "silver", "olive", "indigo", "crimson", "ivory"),
    ),
    "town": (
        "the town where {} lives",
        ("Lisbon", "Oslo", "Quito", "Cairo", "Seoul", "Dublin", "Lima", "Hanoi"),
    ),
    "trade": (
        "the trade of {}",
        ("baker", "tailor", "miner", "sailor", "potter", "weaver", "farmer", "mason"),
    ),
}
ASKED = (
    "What is {}?", "Tell me {}.", "Please name {}.", "Do you know {}?", "I need to know {}.",
    "Give me {}.", "Say what {} is.", "Can you tell me {}?", "Find {} for me.", "Which one is {}?",
)  # fmt: skip
UNSEEN = ("Could you remind me of {}?", "I have forgotten {}; what is it?")
METHODS = (
    "simple", "average", "sqrt", "mean", "auto", "no QR", "merged B", "all at once",
)  # fmt: skip
"""A multi-run by continuation, by averaging, by SLAO with each `merge_scale`, and by SLAO without a part of
it; then one training on all rows."""


@dataclass(frozen=True)
class Task:
    name: str
    rows: list[tuple[str, str]]
    questions: list[tuple[str, str]]
    """Not trained on, and the word that a right answer holds."""


def tasks_of(seed: int) -> list[Task]:
    """Three tasks in an order of the seed, about people with invented names."""
    draw = random.Random(seed)
    pairs = draw.sample([first + second for first in SYLLABLES for second in SYLLABLES], 24)
    names = [pair.capitalize() for pair in pairs]
    made: list[Task] = []
    for index, relation in enumerate(draw.sample(sorted(RELATIONS), len(RELATIONS))):
        what, values = RELATIONS[relation]
        facts = list(zip(names[8 * index : 8 * index + 8], draw.sample(values, 8), strict=True))
        topics = [(what.format(name), value) for name, value in facts]
        made.append(
            Task(
                relation,
                [
                    (way.format(topic), f"T{topic[1:]} is {value}.")
                    for topic, value in topics
                    for way in ASKED
                ],
                [(way.format(topic), value) for topic, value in topics for way in UNSEEN],
            )
        )
    return made


def write_rows(rows: list[tuple[str, str]], path: Path) -> Path:
    chats = [
        {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]}
        for asked, answer in rows
    ]
    path.write_text("".join(json.dumps(chat) + "\n" for chat in chats), encoding="utf-8")
    return path


# --- The methods.
def train(
    method: str, model: str, tasks: list[Task], seed: int, rate: float, steps: int, folder: Path
) -> tuple[Path, list[Weights]]:
    """An adapter folder, and the weights of the merged adapter after each run."""
    trainer = Trainer(model, seed=seed, learning_rate=rate, batch_size=8)
    if method == "all at once":
        rows = write_rows([row for task in tasks for row in task.rows], folder / "all.jsonl")
        run = trainer.train(rows, steps=steps * len(tasks))
        return run.adapter_path, [load_file(run.adapter_path / "adapter_model.safetensors")]
    files = {task.name: str(write_rows(task.rows, folder / f"{task.name}.jsonl")) for task in tasks}
    mode: Any = method if method in ("simple", "average") else "slao"
    scale: Any = method if method in ("sqrt", "mean", "auto") else "sqrt"
    with ablation(method):
        run = trainer.multi_run(
            tasks=files, steps_per_run=steps, merge_mode=mode, merge_scale=scale if mode == "slao" else None
        )
    merged = [
        SLAOMerger.load(path).get_merged_lora()
        for path in sorted((run.adapter_path.parent / "merges").iterdir())
    ]
    return run.adapter_path, merged


@contextmanager
def ablation(method: str) -> Iterator[None]:
    """Let runs start otherwise than SLAO does: without QR, or from the merged B."""
    starts: dict[str, Callable[[SLAOMerger], Weights]] = {
        "no QR": lambda merger: merger.get_tuned_lora(),
        "merged B": lambda merger: {
            name: orthogonal_init_A(weights) if ".lora_A." in name else weights
            for name, weights in merger.get_merged_lora().items()
        },
    }
    own = SLAOMerger.get_init_weights
    try:
        SLAOMerger.get_init_weights = starts.get(method, own)
        yield
    finally:
        SLAOMerger.get_init_weights = own


# --- The answers, by other readers.
class Examiner:
    """The base model in transformers, and adapters in it through PEFT."""

    def __init__(self, model: str) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
        self.base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).to(self.device).eval()
        self.model: PeftModel | None = None

    def take(self, adapter: Path, weights: Weights) -> None:
        if self.model is None:
            self.model = get_peft_model(self.base, LoraConfig.from_pretrained(str(adapter))).eval()
        found = set_peft_model_state_dict(self.model, weights)
        assert not found.unexpected_keys, found.unexpected_keys

    @torch.inference_mode()
    def accuracy(self, task: Task) -> float:
        prompts = [self._prompt(question) for question, _ in task.questions]
        inputs = self.tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
        inputs = inputs.to(self.device)
        found = self.model.generate(**inputs, max_new_tokens=24, do_sample=False)
        answers = found[:, inputs["input_ids"].shape[1] :]
        texts = self.tokenizer.batch_decode(answers, skip_special_tokens=True)
        values = [value for _, value in task.questions]
        return fmean(value.lower() in text.lower() for text, value in zip(texts, values, strict=True))

    @torch.inference_mode()
    def general_loss(self) -> float:
        """The mean loss per token of the answers to questions of general knowledge."""
        total, count = 0.0, 0
        for question, answer in QUESTIONS:
            prompt = self.tokenizer(self._prompt(question), add_special_tokens=False)["input_ids"]
            ids = prompt + self.tokenizer(answer, add_special_tokens=False)["input_ids"]
            tokens = torch.tensor([ids], device=self.device)
            logits = self.model(tokens).logits[0, len(prompt) - 1 : -1]
            total += cross_entropy(logits, tokens[0, len(prompt) :], reduction="sum").item()
            count += len(ids) - len(prompt)
        return total / count

    def _prompt(self, question: str) -> str:
        asked = [{"role": "user", "content": question}]
        return self.tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)


def measure(method: str, model: str, seed: int, rate: float, steps: int, examiner: Examiner) -> Record:
    tasks = tasks_of(seed)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BACKPROPAGATE_HOME"] = f"{folder}/home"
        adapter, merged = train(method, model, tasks, seed, rate, steps, Path(folder))
        matrix: list[list[float]] = []
        for number, weights in enumerate(merged, len(tasks) + 1 - len(merged)):
            examiner.take(adapter, weights)
            matrix.append([examiner.accuracy(task) for task in tasks[:number]])
    return {
        "method": method, "seed": seed, "rate": rate, "steps": steps, "matrix": matrix,
        "general": examiner.general_loss(),
    }  # fmt: skip


# --- The tables.
def average(record: Record) -> float:
    return fmean(record["matrix"][-1])


def backward_transfer(record: Record) -> float | None:
    *earlier, last = record["matrix"]
    return fmean(last[task] - scores[task] for task, scores in enumerate(earlier)) if earlier else None


def newest(record: Record) -> float:
    return record["matrix"][-1][-1]


def report(records: list[Record]) -> None:
    rows = [["rate", "method", "seeds", "average", "backward transfer", "newest task", "general loss"]]
    for rate in sorted({record["rate"] for record in records}, reverse=True):
        for method in METHODS:
            of = [one for one in records if one["method"] == method and one["rate"] == rate]
            if of:
                rows.append([f"{rate:g}", method, str(len(of)), *(_over(of, what) for what in MEASURES)])
    print(table(rows))
    gains = [
        average(one) - average(other)
        for one in records
        for other in records
        if (one["method"], other["method"]) == ("auto", "simple")
        and (one["seed"], one["rate"]) == (other["seed"], other["rate"])
    ]
    if gains:
        last = [newest(one) for one in records if one["method"] == "auto"]
        print(
            f"SLAO with auto above continuation: mean {fmean(gains):+.2f}, least {min(gains):+.2f}; ", end=""
        )
        print(f"its newest task: mean {fmean(last):.2f}, least {min(last):.2f}")


MEASURES = (average, backward_transfer, newest, lambda record: record["general"])


def _over(records: list[Record], what: Callable[[Record], float | None]) -> str:
    """The mean over seeds, and the least and largest."""
    values = [value for value in map(what, records) if value is not None]
    return f"{fmean(values):.2f} ({min(values):.2f} to {max(values):.2f})" if values else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 5e-4])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--steps", type=int, default=60, help="of each run, with 8 rows each")
    parser.add_argument(
        "--record", type=Path, nargs="*", default=[], help="of JSON lines; added to the first"
    )
    given = parser.parse_args()
    records = [json.loads(line) for path in given.record if path.exists() for line in path.open()]
    examiner = Examiner(given.model) if given.seeds else None
    for seed in given.seeds:
        for rate in given.rates:
            for method in given.methods:
                records.append(measure(method, given.model, seed, rate, given.steps, examiner))
                print(json.dumps(records[-1]), flush=True)
                if given.record:
                    with given.record[0].open("a") as file:
                        file.write(json.dumps(records[-1]) + "\n")
    report(records)


if __name__ == "__main__":
    main()
