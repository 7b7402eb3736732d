"""TRL as its users run it, for comparison: SFTTrainer with LoRA on all linear modules.

Where TRL is not installed, transformers' own Trainer with PEFT stands in, which is what TRL builds upon; the
result says which it was.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence


def padded(tokens_seen: list[int]) -> Callable[[Sequence[dict[str, Any]]], dict[str, torch.Tensor]]:
    """A collator that pads to the longest example and notes the number of useful tokens."""

    def collate(batch: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        tokens_seen.append(sum(len(example["input_ids"]) for example in batch))

        def rows(name: str, fill: int) -> torch.Tensor:
            made = [torch.tensor(example[name]) for example in batch]
            return pad_sequence(made, batch_first=True, padding_value=fill)

        masks = [torch.ones(len(example["input_ids"]), dtype=torch.long) for example in batch]
        mask = pad_sequence(masks, batch_first=True)
        return {"input_ids": rows("input_ids", 0), "labels": rows("labels", -100), "attention_mask": mask}

    return collate


def trainer(
    model: Any,
    examples: list[dict[str, list[int]]],
    after_step: Callable[[int], bool],
    **settings: Any,
) -> tuple[Any, str]:
    """A trainer that goes through `examples` in order, and whose it is.

    Args:
        after_step: called with the useful tokens of each finished optimizer step; True ends the training.
        settings: of TrainingArguments.
    """
    from peft import LoraConfig, get_peft_model
    from transformers import Trainer, TrainerCallback, TrainingArguments

    tokens_seen: list[int] = []

    class AfterStep(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if after_step(tokens_seen[state.global_step - 1]):
                control.should_training_stop = True

    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    common: dict[str, Any] = dict(
        output_dir=tempfile.mkdtemp(),
        max_steps=100_000,
        learning_rate=2e-4,
        lr_scheduler_type="linear",
        warmup_steps=5,
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        logging_steps=10,
        disable_tqdm=True,
        report_to="none",
        save_strategy="no",
        remove_unused_columns=False,
        seed=42,
        **settings,
    )
    in_order: Callable[..., Any] = lambda *_: torch.utils.data.SequentialSampler(examples)  # noqa: E731
    if importlib.util.find_spec("trl") is None:
        made = Trainer(
            model=get_peft_model(model, lora),
            args=TrainingArguments(**common),
            train_dataset=examples,  # pyright: ignore[reportArgumentType]
            data_collator=padded(tokens_seen),
            callbacks=[AfterStep()],
        )
        made._get_train_sampler = in_order  # pyright: ignore[reportPrivateUsage]
        return made, "transformers' Trainer + PEFT (TRL is not installed)"
    return _sft_trainer(model, lora, examples, common, padded(tokens_seen), AfterStep(), in_order)


def _sft_trainer(
    model: Any,
    lora: Any,
    examples: list[dict[str, list[int]]],
    common: dict[str, Any],
    collator: Any,
    callback: Any,
    in_order: Callable[..., Any],
) -> tuple[Any, str]:
    import trl
    from datasets import Dataset

    config = trl.SFTConfig(**common, max_length=None, dataset_kwargs={"skip_prepare_dataset": True})
    made = trl.SFTTrainer(
        model=model,
        args=config,
        train_dataset=Dataset.from_list(examples),
        peft_config=lora,
        processing_class=_tokenizer(),
        data_collator=collator,
        callbacks=[callback],
    )
    made._get_train_sampler = in_order  # pyright: ignore[reportPrivateUsage]
    return made, f"TRL {trl.__version__}"


def _tokenizer() -> Any:
    """SFTTrainer wants one, though the examples are tokens already."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"<pad>": 0, "<eos>": 1, "<unk>": 2}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")
