"""Asks a model questions with its adapter off and on: what it said before the training, and what after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import GenerationConfig

from ..config.specs import EvaluationGroup
from .autograd.base_model import load_base
from .plan import Plan

TOGETHER = 5  # questions answered in one batch


def ask_before_and_after(
    plan: Plan,
    adapter: Path,
    tokenizer: Any,
    evaluation: EvaluationGroup,
    should_stop: Callable[[], bool],
    report: Callable[[int], None] = lambda done: None,
) -> list[dict[str, str]]:
    """Answer each question twice, greedily: by the base model, and with the adapter.

    Args:
        report: told how many questions have been answered.

    Returns:
        One `{"question", "before", "after"}` each; fewer when asked to stop.
    """
    answers: list[dict[str, str]] = []
    questions = evaluation.questions
    peft: Any = PeftModel  # half typed
    model = peft.from_pretrained(load_base(plan.changed(recompute="nothing")), adapter)
    model.eval()
    for start in range(0, len(questions), TOGETHER):
        if should_stop():
            break
        batch = questions[start : start + TOGETHER]
        prompts = [_prompt(question, evaluation.system, tokenizer) for question in batch]
        with model.disable_adapter():
            before = _generate(model, tokenizer, prompts, evaluation.max_new_tokens)
        after = _generate(model, tokenizer, prompts, evaluation.max_new_tokens)
        answers += [
            {"question": question, "before": old, "after": new}
            for question, old, new in zip(batch, before, after, strict=True)
        ]
        report(len(answers))
    return answers


def _prompt(question: str, system: str | None, tokenizer: Any) -> str:
    if not tokenizer.chat_template:
        return question
    turns = [] if system is None else [{"role": "system", "content": system}]
    turns.append({"role": "user", "content": question})
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))


def _generate(model: Any, tokenizer: Any, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
    tokenizer.padding_side = "left"
    encoded = tokenizer(list(prompts), return_tensors="pt", padding=True, add_special_tokens=False)
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        use_cache=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=model.generation_config.eos_token_id or tokenizer.eos_token_id,
    )
    with torch.inference_mode():
        output = model.generate(**encoded.to(model.device), generation_config=settings)
    new = output[:, encoded["input_ids"].shape[1] :]  # (questions, new tokens)
    return [text.strip() for text in tokenizer.batch_decode(new, skip_special_tokens=True)]
