"""What carries loss is true to the token: borders, start and end tokens, limits of the model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backpropagate.training.config.specs import DataGroup
from backpropagate.training.data.formats.messages import Text
from backpropagate.training.data.formats.recognise import recognise
from backpropagate.training.data.report.inspection import inspect
from backpropagate.training.data.tokens.encode import Encoder, encode
from backpropagate.training.data.tokens.example import IGNORED
from backpropagate.training.models.token_limits import TokenLimits, token_limits

Tokenizers = Callable[[str], Any]


def without_template(tokenizer: Any) -> Any:
    from copy import deepcopy

    plain = deepcopy(tokenizer)
    plain.chat_template = None
    return plain


def with_template(tokenizer: Any, template: str) -> Any:
    from copy import deepcopy

    other = deepcopy(tokenizer)
    other.chat_template = template
    return other


def trained(row: Any, tokenizer: Any, **settings: Any) -> str:
    """The text of the tokens that carry loss."""
    examples = encode(row, tokenizer, DataGroup(**settings)).examples
    return "".join(tokenizer.decode([label for label in one.labels if label != IGNORED]) for one in examples)


@pytest.mark.parametrize("prompt", ["The capital is ", "Say it:  ", "Say it:\t", "Say it:"])
def test_an_answer_after_a_trailing_space_is_trained(prompt: str, tokenizer_of: Tokenizers) -> None:
    tokenizer = without_template(tokenizer_of("chatml"))
    row = recognise({"prompt": prompt, "completion": "fox"})
    assert trained(row, tokenizer).strip().removesuffix("</s>").strip() == "fox"


@pytest.mark.parametrize("size", range(16, 40))
def test_each_token_of_a_document_is_predicted_once_and_none_stands_alone(
    size: int, tokenizer_of: Tokenizers
) -> None:
    tokenizer = without_template(tokenizer_of("chatml"))
    row = Text("text", "The quick brown fox answers: it is 42. " * 4)
    [whole] = encode(row, tokenizer).examples
    windows = encode(row, tokenizer, DataGroup(max_seq_length=size)).examples
    predicted = [label for one in windows for label in one.labels[1:] if label != IGNORED]
    assert predicted == whole.labels[1:] and all(len(one.input_ids) > 1 for one in windows)


@pytest.mark.parametrize("text", ["<s>It is 42.</s>", "It is 42.</s>", "<s>It is 42.", "It is 42."])
def test_start_and_end_tokens_of_a_text_are_there_once(text: str, tokenizer_of: Tokenizers) -> None:
    tokenizer = without_template(tokenizer_of("llama2"))
    ids = encode(Text("text", text), tokenizer).examples[0].input_ids
    assert ids.count(tokenizer.eos_token_id) == 1 == ids[-1:].count(tokenizer.eos_token_id)
    assert ids.count(tokenizer.bos_token_id) <= 1


def test_an_end_token_in_an_answer_is_not_doubled(tokenizer_of: Tokenizers) -> None:
    row = recognise({"prompt": "Is it?", "completion": "It is.<|im_end|>\n"})
    assert trained(row, tokenizer_of("chatml")) == "It is.<|im_end|>"


def test_the_preview_shows_added_tokens_and_marks_what_carries_loss(
    tmp_path: Path, tokenizer_of: Tokenizers
) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text('{"prompt": "Is it ", "completion": "a fox"}\n')
    found = inspect(DataGroup(source=str(file)), without_template(tokenizer_of("chatml")))
    assert found.preview[0]["untrusted_text"] == "Is it⟦ a fox</s>⟧"


def test_a_rendered_conversation_in_a_text_is_not_advised_to_lose_its_turns(
    tmp_path: Path, tokenizer_of: Tokenizers
) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text(json.dumps({"text": "[INST] Is it? [/INST] It is."}) + "\n")
    [found] = inspect(DataGroup(source=str(file)), tokenizer_of("mistral3")).as_dict()["findings"]
    assert found["kind"] == "rendered" and "remove" not in found["repair"]


OPENS_A_THOUGHT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)


def test_a_template_whose_prompt_opens_a_think_block_has_an_exact_mask(tokenizer_of: Tokenizers) -> None:
    tokenizer = with_template(tokenizer_of("qwen3"), OPENS_A_THOUGHT)
    turns = [("user", "Is it?"), ("assistant", "It is."), ("user", "Why?"), ("assistant", "So.")]
    row = recognise({"messages": [{"role": role, "content": text} for role, text in turns]})
    assert trained(row, tokenizer) == "It is.<|im_end|><think>\n\n</think>\n\nSo.<|im_end|>"


PRINTS_ARGUMENTS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }} {{ c.function.arguments }}{% endfor %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize("as_text", [True, False])
def test_a_template_that_prints_arguments_as_they_are_prints_json(
    as_text: bool, tokenizer_of: Tokenizers
) -> None:
    arguments = {"city": "Bern", "now": True, "note": None}
    given = json.dumps(arguments) if as_text else arguments
    call = {"type": "function", "function": {"name": "rain", "arguments": given}}
    turns = [
        {"role": "user", "content": "Rain?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "yes"},
        {"role": "assistant", "content": "Yes."},
    ]
    tokenizer = with_template(tokenizer_of("chatml"), PRINTS_ARGUMENTS)
    text = Encoder(tokenizer, DataGroup()).render(recognise({"messages": turns})).text
    assert 'rain {"city": "Bern", "now": true, "note": null}' in text


def test_a_token_beyond_the_embedding_is_refused_with_its_number(tokenizer_of: Tokenizers) -> None:
    tokenizer = tokenizer_of("chatml")
    encoder = Encoder(tokenizer, DataGroup(), TokenLimits(vocabulary=len(tokenizer) - 1))
    row = recognise({"prompt": "Is it?", "completion": "It is."})
    [one] = encoder.tokenise([encoder.render(row)])
    assert one.refusal == "unknown_token"
    assert (
        one.reason
        == f"'<|im_end|>' is token {len(tokenizer) - 1:,}, the embedding has {len(tokenizer) - 1:,} rows"
    )


def test_rows_are_cut_to_the_positions_of_the_model_and_say_so(tokenizer_of: Tokenizers) -> None:
    encoder = Encoder(tokenizer_of("chatml"), DataGroup(), TokenLimits(positions=64))
    [one] = encoder.tokenise([encoder.render(recognise({"prompt": "Go", "completion": "It is 42. " * 60}))])
    assert one.kinds == ("beyond_positions",) and one.kept == 64


@pytest.mark.parametrize(
    ("config", "limits"),
    [
        ({"vocab_size": 50257, "n_positions": 1024}, (50257, 1024)),
        ({"text_config": {"vocab_size": 9, "max_position_embeddings": 8}}, (9, 8)),
        ({"vocab_size": "many", "max_position_embeddings": -1}, (None, None)),
        ([], (None, None)),
    ],
)
def test_the_limits_of_a_model_are_those_of_its_config(
    config: Any, limits: tuple[int | None, int | None], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert token_limits(tmp_path) == limits
