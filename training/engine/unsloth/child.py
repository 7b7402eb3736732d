"""Trains with Unsloth, in the Python of an environment that has it: `python -I child.py JOB`.

Imports nothing of this package, which need not be installed there. What to do stands in the job's file, the
examples lie beside it. What happens is told in JSON lines on what was stdout; libraries print to stderr.
After each step, and while it evaluates, the other side answers `go` or `stop`. This process ends as soon as
its stdin does, so it never outlives the worker that started it.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

TOGETHER = 8
"""Held-out examples between two words on how far an evaluation is."""


class Talk:
    """The line to the worker."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def say(self, kind: str, **fields: Any) -> None:
        self._out.write(json.dumps({"kind": kind, **fields}) + "\n")
        self._out.flush()

    def may_go_on(self) -> bool:
        """Wait for the answer to what was told last."""
        return self._answers.get() == "go"

    def _listen(self) -> None:
        for line in sys.stdin:
            self._answers.put(line.strip())
        os._exit(1)  # the worker is gone


def main() -> int:
    """Carry out the job whose file is the first argument."""
    talk = Talk()
    path = Path(sys.argv[1])
    job: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    try:
        model, tokenizer = load(job)
    except BaseException as error:
        traceback.print_exc()
        talk.say("unavailable", reason=in_one_line(error))
        return 1
    talk.say("ready", version=version("unsloth"))
    try:
        padded = train(job, path.parent, model, tokenizer, talk)
    except BaseException as error:
        traceback.print_exc()
        talk.say("failed", reason=in_one_line(error), out_of_memory=ran_out_of_memory(error))
        return 1
    talk.say("done", peak_memory_mib=peak_memory_mib(), padded=padded)
    return 0


def load(job: dict[str, Any]) -> tuple[Any, Any]:
    """The base with a LoRA, and its tokenizer. Unsloth must come before every library that it patches."""
    fast: Any = import_module("unsloth").FastLanguageModel
    import torch

    if job["threads"]:
        torch.set_num_threads(job["threads"])
    model, tokenizer = fast.from_pretrained(
        job["model"],
        max_seq_length=job["max_seq_length"],
        dtype=getattr(torch, job["precision"]),
        load_in_4bit=job["load_in_4bit"],
        use_exact_model_name=True,
        local_files_only=True,
        trust_remote_code=False,
    )
    lora = job["lora"]
    model = fast.get_peft_model(
        model,
        r=lora["r"],
        lora_alpha=lora["alpha"],
        lora_dropout=lora["dropout"],
        use_rslora=lora["rslora"],
        target_modules=job["target_modules"],
        use_gradient_checkpointing=False if job["recompute"] == "nothing" else "unsloth",
        random_state=job["seed"],
    )
    if job["continue_from"]:
        take_over(Path(job["continue_from"]), model)
    return model, tokenizer


def take_over(adapter: Path, model: Any) -> None:
    """Start from the matrices of an adapter."""
    tensors = import_module("safetensors.torch").load_file(adapter / "adapter_model.safetensors")
    report = import_module("peft").set_peft_model_state_dict(model, tensors)
    if report.unexpected_keys:
        raise ValueError(f"the adapter to go on from is of other modules: {report.unexpected_keys[0]}")


def train(job: dict[str, Any], folder: Path, model: Any, tokenizer: Any, talk: Talk) -> bool:
    """All steps, the held-out loss, and the adapter; told as it happens. Whether batches were padded."""
    from torch.utils.data import SequentialSampler

    examples = dataset(folder, "train").select(job["order"])
    # Unsloth leaves out the padding only where it knows that no row has to be cut: the worker has done that.
    examples._unsloth_truncated_to = job["max_seq_length"]
    held_out = HeldOut(job, dataset(folder, "held_out") if job["held_out"] else [], talk)
    trl = import_module("trl")  # as Unsloth has patched it
    trainer = trl.SFTTrainer(
        model=model,
        args=trl.SFTConfig(**arguments(job, folder)),
        train_dataset=examples,
        processing_class=tokenizer,
        callbacks=[observer(talk, held_out)],
    )
    in_order = SequentialSampler(examples)

    def sampler(*_: Any) -> SequentialSampler:
        return in_order

    trainer._get_train_sampler = sampler
    if not job["evaluate_before"] or held_out.evaluate(model, 0):
        trainer.train()
    if job["held_out"] and trainer.state.global_step == job["steps"] != held_out.evaluated:
        held_out.evaluate(model, job["steps"])
    model.save_pretrained(job["adapter"], safe_serialization=True)
    return not trainer.args.padding_free


def arguments(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Of SFTConfig."""
    on_gpu = job["device"] == "cuda"
    constant = job["lr_scheduler"] == "constant"
    return dict(
        output_dir=str(folder / "output"),
        max_steps=job["steps"],
        per_device_train_batch_size=job["batch_size"],
        gradient_accumulation_steps=job["gradient_accumulation_steps"],
        learning_rate=job["learning_rate"],
        lr_scheduler_type="constant_with_warmup" if constant else job["lr_scheduler"],
        warmup_steps=job["warmup_steps"],
        weight_decay=job["weight_decay"],
        max_grad_norm=job["max_grad_norm"],
        optim="adamw_torch_fused",
        seed=job["seed"],
        bf16=on_gpu,
        use_cpu=not on_gpu,
        eval_strategy="no",
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


class HeldOut:
    """The loss on the held-out examples, per label token as of every engine.

    The trainer's own evaluation is a mean of its batches' means, and so depends on the batch size.
    """

    def __init__(self, job: dict[str, Any], examples: Any, talk: Talk) -> None:
        self._job, self._examples, self._talk = job, examples, talk
        self.evaluated = -1

    def is_due(self, step: int) -> bool:
        """Whether this step is an `eval_every`-th one."""
        return bool(self._examples and self._job["eval_every"]) and step % self._job["eval_every"] == 0

    def evaluate(self, model: Any, step: int) -> bool:
        """Measure the loss now, and tell it; step 0 is the model as it came. False if told to stop."""
        import torch

        training = model.training
        model.eval()
        on_gpu = self._job["device"] == "cuda"
        with torch.no_grad(), torch.autocast("cuda", getattr(torch, self._job["precision"]), enabled=on_gpu):
            losses = self._losses(model, step)
        model.train(training)
        self.evaluated = step
        if losses is None:
            return False
        loss = sum(total for total, _ in losses) / max(1, sum(tokens for _, tokens in losses))
        self._talk.say("eval", step=step, loss=loss)
        return True

    def _losses(self, model: Any, step: int) -> list[tuple[float, int]] | None:
        """Of each example, as `_loss`; None if told to stop."""
        losses: list[tuple[float, int]] = []
        for number, example in enumerate(self._examples):
            if number % TOGETHER == 0:
                self._talk.say("evaluating", step=step, done=number, total=len(self._examples))
                if not self._talk.may_go_on():
                    return None
            losses.append(self._loss(model, example))
        return losses

    @staticmethod
    def _loss(model: Any, example: dict[str, list[int]]) -> tuple[float, int]:
        """The sum of the losses of an example's label tokens, and their number."""
        import torch

        device = next(model.parameters()).device
        tokens = sum(label != -100 for label in example["labels"][1:])  # the first has nothing before it
        if not tokens:
            return 0.0, 0
        batch = {name: torch.tensor([values], device=device) for name, values in example.items()}
        return float(model(**batch).loss) * tokens, tokens


def observer(talk: Talk, held_out: HeldOut) -> Any:
    """A callback that tells each step, evaluates when it is time, and stops when it is told to."""
    from transformers import TrainerCallback

    class Observer(TrainerCallback):
        def on_log(
            self, args: Any, state: Any, control: Any, logs: Any = None, model: Any = None, **_: Any
        ) -> None:
            if "loss" not in logs:
                return
            told = {name: logs.get(name) for name in ("loss", "grad_norm", "learning_rate")}
            talk.say("step", step=state.global_step, **told)
            go_on = talk.may_go_on()
            if go_on and held_out.is_due(state.global_step):
                go_on = held_out.evaluate(model, state.global_step)
            control.should_training_stop |= not go_on

    return Observer()


def dataset(folder: Path, name: str) -> Any:
    """The examples that the worker wrote down, as columns `input_ids` and `labels`."""
    options = {"gen_kwargs": {"path": str(folder / name)}, "cache_dir": str(folder / "rows")}
    return import_module("datasets").Dataset.from_generator(rows, **options)


def rows(path: str) -> Iterator[dict[str, list[int]]]:
    """Each example: int32 tokens and labels end to end, and an int64 number for where each example ends."""
    import numpy as np

    tokens = np.fromfile(f"{path}.input_ids", np.int32)
    labels = np.fromfile(f"{path}.labels", np.int32)
    start = 0
    for end in np.fromfile(f"{path}.ends", np.int64).tolist():
        yield {"input_ids": tokens[start:end].tolist(), "labels": labels[start:end].tolist()}
        start = end


def ran_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or "out of memory" in str(error)


def peak_memory_mib() -> int:
    """The most memory held at a time: of the GPU where there is one, else of this process."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() // 2**20
    import psutil

    return psutil.Process().memory_info().rss // 2**20


def in_one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:300]}"


if __name__ == "__main__":
    sys.exit(main())
