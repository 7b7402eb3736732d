"""Unsloth as its users run it, for comparison: `python unsloth_side.py JOB`, in an environment that has it.

Imports nothing of this package. The job's file says which model and examples, and how long; see
`gpu_lora.py`. The last line of its output is the result.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from workload import EXAMPLES_PER_STEP, Windows, peaks


def end_with_the_parent() -> None:
    """A side that takes too long is killed: this process must not go on training beside the next one."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def attention() -> str:
    """What computes Unsloth's attention, by its own word: what is installed need not load."""
    found: Any = import_module("unsloth.utils.attention_dispatch")
    usable = {"FlashAttention": found.HAS_FLASH_ATTENTION, "xformers": found.HAS_XFORMERS}
    return next((name for name, there in usable.items() if there), "torch's attention")


def main() -> None:
    end_with_the_parent()
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    fast: Any = import_module("unsloth").FastLanguageModel  # before what it patches
    import torch
    import trl
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from transformers import TrainerCallback

    model, tokenizer = fast.from_pretrained(
        job["model"],
        max_seq_length=job["longest"],
        dtype=torch.bfloat16,
        load_in_4bit=job["load_in_4bit"],
        use_exact_model_name=True,
        local_files_only=True,
    )
    model = fast.get_peft_model(
        model, r=16, lora_alpha=32, target_modules=job["target_modules"],
        use_gradient_checkpointing="unsloth" if job["checkpointing"] else False,
    )  # fmt: skip
    examples: list[dict[str, list[int]]] = json.loads(Path(job["examples"]).read_text())
    windows = Windows(
        True, job["windows"], job["window_s"], warmup_s=job["warm_up_s"], started=job["started"]
    )

    class AfterStep(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            first = (state.global_step - 1) * EXAMPLES_PER_STEP % len(examples)
            windows.tick(sum(len(e["input_ids"]) for e in examples[first : first + EXAMPLES_PER_STEP]))
            control.should_training_stop = windows.done

    rows = Dataset.from_list(examples)
    # What Unsloth reads before it leaves out the padding: it cannot see that no row has to be cut.
    rows._unsloth_truncated_to = job["longest"]
    torch.backends.cuda.enable_cudnn_sdp(False)  # as for TRL: it plans anew for every shape
    torch.cuda.reset_peak_memory_stats()
    trainer = trl.SFTTrainer(
        model=model,
        args=trl.SFTConfig(
            output_dir=tempfile.mkdtemp(),
            max_steps=100_000,
            per_device_train_batch_size=EXAMPLES_PER_STEP,
            gradient_accumulation_steps=1,  # Unsloth's own default is 2
            learning_rate=2e-4,
            warmup_steps=5,
            max_grad_norm=1.0,
            optim="adamw_torch_fused",
            bf16=True,
            logging_steps=10,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=rows,
        processing_class=tokenizer,
        callbacks=[AfterStep()],
    )
    trainer._get_train_sampler = lambda *_: SequentialSampler(examples)
    trainer.train()
    batches = "without padding" if trainer.args.padding_free else "padded"
    who = f"Unsloth {version('unsloth')}, batches {batches}, {attention()}"
    result = {**windows.result(), "who": who, **peaks(True)}
    print("RESULT " + json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
