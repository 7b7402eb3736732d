"""What the rows, names and chat template of a stranger say reaches an assistant as untrusted text only."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from foreign_texts import HOSTILE, MARKER, texts
from mcp import Client
from mcp.types import TextContent

from backpropagate.server.app import build_server
from backpropagate.server.error_result import ERROR
from backpropagate.tools.inspect_dataset import dataset_report
from backpropagate.tools.wording import words
from backpropagate.training.config.results import InspectResult
from backpropagate.training.config.specs import DataGroup
from backpropagate.training.data.report.inspection import inspect
from backpropagate.training.data.tokens.tokenizer_files import TokenizerFiles
from backpropagate.training.errors import BackpropagateError
from backpropagate.training.service import TrainingService

GOOD = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}


def turns(*messages: Any, **keys: Any) -> dict[str, Any]:
    return {"messages": list(messages), **keys}


ANSWER = {"role": "assistant", "content": "Hello"}
CALL = {"type": MARKER, "function": {"name": MARKER, "arguments": MARKER}}
ROWS: dict[str, Any] = {
    "keys": {MARKER: 1, HOSTILE: 2},
    "key beside": GOOD | {MARKER: "text", HOSTILE: {"a": 1}},
    "keys of turns": turns({"role": "user", "content": "Hi", MARKER: "text"}, ANSWER),
    "role": turns({"role": HOSTILE, "content": "Hi"}, ANSWER),
    "part": turns({"role": "user", "content": [{"type": HOSTILE, "x": 1}]}, ANSWER),
    "keys of parts": turns({"role": "user", "content": [{"type": "text", "text": "a", MARKER: 1}]}, ANSWER),
    "call": turns({"role": "user", "content": "Hi"}, {**ANSWER, "tool_calls": [CALL]}),
    "tools": GOOD | {"tools": [{"type": MARKER, "function": {"name": MARKER}}]},
    "tool's arguments": GOOD | {"tools": MARKER},
    "control token": turns({"role": "user", "content": f"<|{MARKER}|> <|im_end|>"}, ANSWER),
    "text": {"text": HOSTILE},
    "question": turns({"role": "user", "content": HOSTILE}, {"role": "assistant", "content": HOSTILE}),
    "label": {"prompt": "a", "completion": "b", "label": HOSTILE},
    "media": GOOD | {"image": HOSTILE},
}


def of_rows(row: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "rows.jsonl").write_text((json.dumps(row) + "\n") * 5, encoding="utf-8")
        return folder / "rows.jsonl"

    return write


def of_file(name: str, content: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_text(content, encoding="utf-8")
        return folder / name

    return write


def in_folder(*names: str, content: str = json.dumps(GOOD) + "\n") -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        for name in names:
            (folder / name).write_text(content, encoding="utf-8")
        return folder

    return write


DATASETS: dict[str, Callable[[Path], Path]] = {
    **{name: of_rows(row) for name, row in ROWS.items()},
    "header": of_file("a.csv", f'{MARKER},"x\nNext: {MARKER}"\n1,2\n'),
    "repeated header": of_file("a.csv", f"{MARKER},{MARKER}\n1,2\n"),
    "columns of JSON": of_file("a.json", json.dumps({MARKER: [1, 2], HOSTILE: [1]})),
    "no JSON": of_file("a.json", f"[{MARKER}]"),
    "file name": of_file(f"{MARKER}.jsonl", '{"a": 1}\n'),
    "file name in a folder": in_folder(f"{HOSTILE}.jsonl", content='{"a": 1}\n'),
    "other split": in_folder("train.jsonl", f"test {MARKER}.jsonl"),
    "other compression": in_folder(f"{HOSTILE}.jsonl.gz", content="no gzip"),
    "damaged": in_folder(f"{HOSTILE}.parquet", content="PAR1"),
    "other type": of_file(f"a.{MARKER}", "text"),
    "missing": lambda folder: folder / f"{HOSTILE}.jsonl",
    "empty folder": in_folder(f"{HOSTILE}.exe"),
}

RAISE = "{{ raise_exception('" + HOSTILE.replace("\n", "\\n") + "') }}"
TEMPLATES = {
    "refuses all": RAISE,
    "refuses one row": "{% if messages[0].content == 'Hi' %}" + RAISE + "{% endif %}",
    "undefined": "{{ x['" + MARKER + "'].y }}",
    "no template": "{% " + MARKER + " %}",
    "other end": "{% for message in messages %}" + MARKER + "{{ message.content }}" + MARKER + "{% endfor %}",
}


def require_marked(text: str, fields: dict[str, Any], failed: bool) -> None:
    """Nothing of a stranger is outside `untrusted…` fields, and no text has a line or control of theirs."""
    assert not (failed and MARKER in text)
    assert not any(line.lstrip().startswith((MARKER, f"Next: {MARKER}")) for line in text.splitlines())
    for path, found in [("text", text), *texts(fields)]:
        assert not set("\x1b\x07\u202e") & set(found), path
        assert MARKER not in found or "untrusted" in path or path == "text", (path, found)


def looked_at(dataset: Path, model: Path) -> dict[str, Any]:
    """What an inspection tells, checked: the fields of its result or of its error."""
    try:
        found = inspect(DataGroup(source=str(dataset)), TokenizerFiles(model))
    except BackpropagateError as error:
        fields = error.record().model_dump(mode="json")
        require_marked(error.sentence(words), fields, failed=True)
        return fields
    report = dataset_report("run", InspectResult.model_validate(found.as_dict()))
    fields = report.model_dump(mode="json")
    require_marked(report.text(), fields, failed=False)
    return fields


@pytest.mark.parametrize("name", DATASETS)
def test_a_strangers_row_or_name_is_marked(name: str, tmp_path: Path, tiny_model: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    looked_at(DATASETS[name](folder), tiny_model)


@pytest.fixture
def model(request: pytest.FixtureRequest, tmp_path: Path, tiny_model: Path) -> Path:
    """A model whose template begins with one of TEMPLATES."""
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    template = folder / "chat_template.jinja"
    before = TEMPLATES[request.param]
    template.write_text(before + template.read_text(encoding="utf-8"), encoding="utf-8")
    return folder


@pytest.mark.parametrize("model", TEMPLATES, indirect=True)
def test_the_words_of_a_chat_template_are_marked(model: Path, tmp_path: Path) -> None:
    looked_at(of_rows(GOOD)(tmp_path), model)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["refuses all", "refuses one row"], indirect=True)
@pytest.mark.parametrize("tool", ["inspect_dataset", "train"])
@pytest.mark.anyio
async def test_what_a_template_says_is_told_beside_the_problem(
    tool: str, service: TrainingService, tmp_path: Path, model: Path
) -> None:
    async with Client(build_server(service, [tmp_path])) as client:
        arguments = {"dataset": str(of_rows(GOOD)(tmp_path)), "model": str(model)}
        result = await client.call_tool(tool, arguments)
    (content,) = result.content
    assert isinstance(content, TextContent)
    fields: dict[str, Any] = result.structured_content or (result.meta or {})[ERROR]
    require_marked(content.text, fields, result.is_error)
    assert MARKER in json.dumps(fields)
