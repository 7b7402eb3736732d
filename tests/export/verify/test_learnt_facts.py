"""What a model has learnt is still there when llama.cpp runs the exported file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from facts import FACTS, UNSEEN, answer, write_dataset

from backpropagate import Trainer

LIMITS = {"f16": 1e-4, "q8_0": 0.02}
"""Mean KL to the trained model, nats per token."""


@pytest.mark.slow
@pytest.mark.nightly
def test_smollm2_answers_its_learnt_facts_from_the_exported_files(
    llama_cpp: None, smollm2: Path, home: Path, tmp_path: Path
) -> None:
    trainer = Trainer(str(smollm2), learning_rate=1e-3, batch_size=4, lora_r=16)
    trainer.train(write_dataset(tmp_path / "facts.jsonl"), steps=40)
    for quantization in ("f16", "q8_0", "q4_k_m"):
        exported = trainer.export("gguf", quantization=quantization, output=tmp_path / f"{quantization}.gguf")
        assert "3,000 texts were tokenised by llama.cpp" in " ".join(exported.proof)
        divergence = re.search(r"KL to the trained model ([\d.e-]+),", exported.proof[-1])
        assert divergence is not None, exported.proof
        assert float(divergence[1]) < LIMITS.get(quantization, 1.0)
        assert right_answers(exported.path) >= (8 if quantization == "q4_k_m" else 9)


def right_answers(path: Path) -> int:
    """How many of the ten facts the file knows, asked as in no row of the data."""
    from llama_cpp import Llama

    model = Llama(str(path), n_ctx=256, n_threads=1, verbose=False)
    try:
        return sum(answer(key) in said(model, UNSEEN[0].format(key)) for key in FACTS)
    finally:
        model.close()


def said(model: object, question: str) -> str:
    turns = [{"role": "system", "content": ""}, {"role": "user", "content": question}]
    reply = model.create_chat_completion(turns, max_tokens=24, temperature=0)  # type: ignore[attr-defined]
    return reply["choices"][0]["message"]["content"]


@pytest.mark.slow
@pytest.mark.nightly
def test_an_importance_matrix_makes_a_quantised_model_more_like_the_original(
    llama_cpp: None, smollm2: Path, tmp_path: Path
) -> None:
    from pydoc_data.topics import topics

    from transformers import AutoTokenizer

    from backpropagate.training.export.gguf.export import GgufRequest, UnverifiedGguf, export_gguf
    from backpropagate.training.export.reference_model import Reference
    from backpropagate.training.export.verify.logits import verify_logits
    from backpropagate.training.export.verify.tensors import verify_tensors

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    rows = [tokenizer(text[:1500])["input_ids"] for text in list(topics.values())[:12]]
    reference = Reference(smollm2, None)
    imatrix = reference.imatrix(rows[:8], lambda done: None)
    found: list[float] = []

    def verify(file: UnverifiedGguf) -> None:
        verify_tensors(file, threads=1)
        found.append(verify_logits(file, Reference(smollm2, None), rows[8:], 1, lambda done: None).divergence)

    for weights in ({}, imatrix):
        target = tmp_path / f"{len(weights)}.gguf"
        request = GgufRequest(smollm2, None, "smollm2", "q4_k_m", target, tmp_path / "part", weights, 1)
        export_gguf(request, verify)
    assert found[1] < found[0]
