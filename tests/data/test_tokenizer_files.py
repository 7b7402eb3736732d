"""A tokenizer read without transformers renders and tokenises as transformers' own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backpropagate.training.config.specs import DataGroup
from backpropagate.training.data.formats.messages import Completion, Conversation, Text
from backpropagate.training.data.readers.rows import RowError
from backpropagate.training.data.tokens.encode import Encoder
from backpropagate.training.data.tokens.tokenizer_files import TokenizerFiles
from backpropagate.training.errors import ModelLoadError
from backpropagate.training.models.tokenizer import load_tokenizer

CALL = {"type": "function", "id": "abcdefghi", "function": {"name": "sum", "arguments": {"a": 1, "b": [2]}}}
ROWS = [
    Conversation(
        "openai", [{"role": "user", "content": " Hi é\n"}, {"role": "assistant", "content": " Hello "}]
    ),
    Conversation(
        "openai",
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "1 + 2?"},
            {"role": "assistant", "content": "", "reasoning_content": "Add.", "tool_calls": [CALL]},
            {"role": "tool", "content": "3", "tool_call_id": "abcdefghi"},
            {"role": "assistant", "content": "<think>\nhm\n</think>\n\nIt is 3."},
        ],
        [{"type": "function", "function": {"name": "sum", "description": "Adds <b>.", "parameters": {}}}],
    ),
    Completion("prompt_completion", "1 + 1 =", "2"),
    Text("text", "The quick brown fox."),
]


def outcome(tokenizer: Any, row: Any) -> Any:
    encoder = Encoder(tokenizer, DataGroup())
    try:
        rendered = encoder.render(row)
        (encoded,) = encoder.tokenise([rendered])
        return rendered, encoded.examples, encoded.kinds
    except RowError as error:
        return error.kind, error.reason


def test_all_families_render_and_tokenise_as_in_transformers(
    family: str, tokenizer_of: Any, tmp_path: Path
) -> None:
    tokenizer_of(family).save_pretrained(tmp_path)
    files = TokenizerFiles(tmp_path)
    for row in ROWS:
        assert outcome(files, row) == outcome(tokenizer_of(family), row)


def test_a_real_model_renders_and_tokenises_as_in_transformers(smollm2: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    for row in ROWS:
        assert outcome(TokenizerFiles(smollm2), row) == outcome(tokenizer, row)


def test_a_generation_mark_in_the_template_changes_nothing(tokenizer_of: Any, tmp_path: Path) -> None:
    tokenizer = tokenizer_of("chatml")
    tokenizer.save_pretrained(tmp_path)
    marked = tokenizer.chat_template.replace(
        "{{ '<|im_start|>' +", "{% generation %}{{ '<|im_start|>' +"
    ).replace("'\\n' }}{% endfor %}", "'\\n' }}{% endgeneration %}{% endfor %}")
    assert "endgeneration" in marked
    (tmp_path / "chat_template.jinja").write_text(marked)
    assert outcome(TokenizerFiles(tmp_path), ROWS[0]) == outcome(tokenizer, ROWS[0])


def test_a_folder_without_a_tokenizer_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"no tokenizer at .*tokenizer\.json"):
        TokenizerFiles(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelLoadError, match="cannot be read"):
        TokenizerFiles(tmp_path)


LIGHT = """
import sys
from pathlib import Path
from backpropagate.training.config.specs import DataGroup
from backpropagate.training.data.report.inspection import inspect
from backpropagate.training.data.tokens.tokenizer_files import TokenizerFiles
result = inspect(DataGroup(source=sys.argv[2]), TokenizerFiles(Path(sys.argv[1])))
assert result.tokens["total"] > 0
assert not {"torch", "transformers"} & set(sys.modules)
"""


def test_an_inspection_with_it_imports_no_torch(tokenizer_of: Any, tmp_path: Path) -> None:
    tokenizer_of("chatml").save_pretrained(tmp_path)
    (tmp_path / "a.jsonl").write_text('{"prompt": "Hi", "completion": "Hello"}')
    subprocess.run([sys.executable, "-c", LIGHT, str(tmp_path), str(tmp_path / "a.jsonl")], check=True)


@pytest.mark.parametrize("name", ["LlamaTokenizer", "Qwen2Tokenizer", "GPT2Tokenizer", "BertTokenizer"])
def test_a_class_that_makes_an_empty_tokenizer_of_a_missing_file_is_refused(
    tokenizer_of: Any, tmp_path: Path, name: str
) -> None:
    tokenizer_of("chatml").save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "tokenizer_class": name}))
    with pytest.raises(
        ModelLoadError, match=r"loses the letters of a plain text: tokenizer\.json is missing"
    ):
        load_tokenizer(tmp_path)


def test_a_vocabulary_without_letters_is_refused(tokenizer_of: Any, tmp_path: Path) -> None:
    tokenizer_of("chatml").save_pretrained(tmp_path)
    path = tmp_path / "tokenizer.json"
    saved = json.loads(path.read_text())
    vocabulary = saved["model"]["vocab"]
    saved["model"]["vocab"] = {token: index for token, index in vocabulary.items() if not token.isalpha()}
    saved["model"]["merges"] = []
    path.write_text(json.dumps(saved))
    with pytest.raises(ModelLoadError, match="loses the letters"):
        TokenizerFiles(tmp_path)
    with pytest.raises(ModelLoadError, match="loses the letters"):
        load_tokenizer(tmp_path)
