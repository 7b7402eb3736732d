"""What the folders, files and servers of a stranger say about a model never speaks for us.

A marker is planted in each place; then all that goes out is looked at: the tools' answers, the terminal, the
events, the log, the card.
"""

from __future__ import annotations

import json
import logging
import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from foreign_texts import HOSTILE, MARKER, texts
from ollama_stand_in import Fault, OllamaStandIn
from rarer import rarer
from tiny_gguf import CHATML, write_gguf
from tiny_lora import build_adapter, change_json

from backpropagate import Trainer
from backpropagate.cli.main import run as command
from backpropagate.tools.status import run_status
from backpropagate.tools.wording import words
from backpropagate.training.config.settings import load_settings
from backpropagate.training.errors import BackpropagateError
from backpropagate.training.events import Phase, Warned
from backpropagate.training.export.hub.model_card import bare_card
from backpropagate.training.files.paths import PathPolicy
from backpropagate.training.logs import _Formatter, logger  # pyright: ignore[reportPrivateUsage]
from backpropagate.training.requests.export import export_spec
from backpropagate.training.requests.register import register_spec
from backpropagate.training.runs.event_log import all_events
from backpropagate.training.runs.folder import RunFolder
from backpropagate.training.runs.store import RunStore
from backpropagate.training.runs.view import view
from backpropagate.training.worker import export, register
from backpropagate.training.worker.in_process import Execute, run_in_process

Plant = Callable[[Path], object]


def entry(file: str, **entries: Any) -> Plant:
    return lambda folder: change_json(folder / file, **entries)


def config(**entries: Any) -> Plant:
    return entry("config.json", **entries)


def index(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": HOSTILE}}))


def header(**tensor: Any) -> Plant:
    """A file of weights that has only a header."""

    def write(folder: Path) -> None:
        text = json.dumps({HOSTILE: tensor}).encode()
        for name in ("model.safetensors", "adapter_model.safetensors"):
            if (folder / name).exists():
                (folder / name).write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))

    return write


def settings_of_the_tokenizer(change: Callable[[dict[str, Any]], object]) -> Plant:
    def write(folder: Path) -> None:
        content = json.loads((folder / "tokenizer.json").read_text("utf-8"))
        change(content)
        (folder / "tokenizer.json").write_text(json.dumps(content), "utf-8")

    return write


SPLIT = {"type": "Split", "pattern": {"String": MARKER}, "behavior": "Isolated", "invert": False}
IN_MODELS: dict[str, Plant] = {
    "model_type": config(model_type=HOSTILE),
    "another model_type": config(model_type=MARKER, architectures=[MARKER]),
    "architectures": config(architectures=[HOSTILE]),
    "dtype": config(dtype=HOSTILE),
    "rope": config(rope_parameters={"rope_type": HOSTILE}),
    "a number of rope": config(rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": MARKER}),
    "activation": config(hidden_act=MARKER),
    "kinds of layers": config(layer_types=[MARKER, MARKER]),
    "a size": config(hidden_size=MARKER),
    "another entry": config(**{HOSTILE: HOSTILE}),
    "quantisation": config(quantization_config={"quant_method": MARKER}),
    "no config": lambda folder: (folder / "config.json").write_text(f"{{{MARKER}"),
    "index": index,
    "tensor": header(dtype=MARKER, shape=[1], data_offsets=[0, 4]),
    "place of a tensor": header(dtype="F32", shape=[1], data_offsets=[0, MARKER]),
    "a tensor more": header(dtype="F32", shape=[1], data_offsets=[0, 4]),
    "eos token": entry("tokenizer_config.json", eos_token=HOSTILE),
    "tokenizer class": entry("tokenizer_config.json", tokenizer_class=HOSTILE),
    "templates": entry("tokenizer_config.json", chat_template=[{MARKER: 1}]),
    "tokenizer": lambda folder: (folder / "tokenizer.json").write_text(json.dumps({"version": MARKER})),
    "kind of tokenizer": settings_of_the_tokenizer(lambda it: it["model"].update(type=MARKER)),
    "merges": settings_of_the_tokenizer(lambda it: it["model"].update(merges=[MARKER])),
    "prefix": settings_of_the_tokenizer(lambda it: it["model"].update(continuing_subword_prefix=MARKER)),
    "splitting": settings_of_the_tokenizer(lambda it: it.update(pre_tokenizer=SPLIT)),
    "a token beyond": settings_of_the_tokenizer(lambda it: it["model"]["vocab"].update({MARKER: 9_999})),
    "licence": lambda folder: (folder / "README.md").write_text(f"---\nlicense: {MARKER}\n---\n"),
}
IN_WEIGHTS = ("no config", "quantisation", "index", "tensor", "a tensor more", "licence")
IN_TRAINING = (
    "model_type",
    "architectures",
    "rope",
    "activation",
    "no config",
    "index",
    "tensor",
    "eos token",
)
"""The plants that another format, or a training, meets elsewhere than a GGUF."""
MET_FIRST = ("model_type", "tensor", "eos token")
"""In config, weights and tokenizer."""
IN_ADAPTERS: dict[str, Plant] = {
    "base": entry("adapter_config.json", base_model_name_or_path=HOSTILE),
    "a path as base": entry("adapter_config.json", base_model_name_or_path=f"/nowhere/{HOSTILE}"),
    "no base": entry("adapter_config.json", base_model_name_or_path=[MARKER]),
    "peft_type": entry("adapter_config.json", peft_type=HOSTILE),
    "lora_alpha": entry("adapter_config.json", lora_alpha=HOSTILE),
    "rank": entry("adapter_config.json", r=HOSTILE),
    "another entry": entry("adapter_config.json", **{HOSTILE: HOSTILE}),
    "bias": entry("adapter_config.json", bias=HOSTILE),
    "tensor": header(dtype="F32", shape=[1], data_offsets=[0, 4]),
    "dtype of a tensor": header(dtype=MARKER, shape=[1], data_offsets=[0, 4]),
    "no config": lambda folder: (folder / "adapter_config.json").write_text(f"{{{MARKER}"),
}


# --- what goes out ---
def require_ours(text: str) -> None:
    """No command to a terminal, and no line of the stranger's."""
    assert not set("\x1b\x07\u202e") & set(text)
    assert not any(line.lstrip().startswith((MARKER, f"Next: {MARKER}")) for line in text.split("\n")), text


def require_marked(fields: Any) -> None:
    """Nothing whole of the stranger's outside of `untrusted…` fields."""
    for path, found in texts(fields):
        assert not set("\x1b\x07\u202e") & set(found), path
        assert MARKER not in found or "untrusted" in path, (path, found)


def require_error_of_ours(error: BackpropagateError) -> None:
    require_marked({"text": error.sentence(words), **error.record().model_dump(mode="json")})


def require_run_of_ours(run: RunFolder, capfd: pytest.CaptureFixture[str]) -> None:
    """An assistant's answer, the terminal's lines, the events and the card of a run."""
    status = run_status(view(run, run.state()))
    require_ours(status.text())
    assert MARKER not in status.text()
    require_marked(status.model_dump(mode="json"))
    for event in all_events(run.events_path):
        if isinstance(event, Phase | Warned):
            assert MARKER not in event.message
    capfd.readouterr()
    for arguments in (["show-run", run.run_id], ["list-runs"], ["show-run", run.run_id, "--json"]):
        command(arguments)
        require_ours("".join(capfd.readouterr()))
    card = run.adapter_path / "README.md"
    assert not card.exists() or MARKER not in card.read_text("utf-8").partition("\n---\n")[2]


def carried_out(execute: Execute, spec: Callable[[RunStore, PathPolicy], Any]) -> RunFolder:
    """A run in this process, however it ends."""
    settings = load_settings()
    store = RunStore(settings.home)
    run = store.create(spec(store, PathPolicy.for_person(settings.home)))
    with suppress(BackpropagateError):
        run_in_process(execute, run, store, settings.runtime_dir)
    return run


@pytest.fixture(scope="module")
def adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of `tiny_model`, as PEFT writes it."""
    return build_adapter(tmp_path_factory.mktemp("adapters") / "adapter", tiny_model)


# --- models and adapters ---
def exported(folder: Path, format: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """Export a folder, whether that succeeds or not, and look at what is said."""
    quantization = "q8_0" if format == "gguf" else None
    try:
        run = carried_out(
            export.run,
            lambda store, paths: export_spec(
                str(folder), store, paths, format=format, quantization=quantization
            ),
        )
    except BackpropagateError as error:  # before there is a run
        require_error_of_ours(error)
    else:
        require_run_of_ours(run, capfd)
        if format == "merged" and run.state().result is not None:
            (card,) = run.path.rglob("README.md")
            assert MARKER not in card.read_text("utf-8")


@pytest.mark.parametrize(
    ("plant", "format"),
    [*((plant, "gguf") for plant in IN_MODELS), *((plant, "merged") for plant in IN_WEIGHTS)],
)
@pytest.mark.slow
def test_an_export_repeats_nothing_that_a_model_says(
    plant: str, format: str, tmp_path: Path, tiny_model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    IN_MODELS[plant](folder)
    exported(folder, format, capfd)


@pytest.mark.parametrize(
    "plant",
    [plant if plant in MET_FIRST else rarer(plant) for plant in IN_TRAINING],
)
def test_a_training_repeats_nothing_that_a_model_says(
    plant: str, tmp_path: Path, tiny_model: Path, dataset: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    IN_MODELS[plant](folder)
    try:
        Trainer(str(folder), steps=1, questions=["Hi"]).train(dataset)
    except BackpropagateError as error:
        require_error_of_ours(error)
    for run, _ in RunStore(load_settings().home).newest():
        require_run_of_ours(run, capfd)


@pytest.mark.parametrize("plant", IN_ADAPTERS)
def test_an_export_repeats_nothing_that_an_adapter_says(
    plant: str, tmp_path: Path, adapter: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(adapter, tmp_path / "adapter")
    IN_ADAPTERS[plant](folder)
    for format in ("merged", "lora"):
        exported(folder, format, capfd)


def test_a_folders_name_is_cut_in_sentences(
    tmp_path: Path, tiny_model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / HOSTILE)
    (folder / "config.json").write_text("{")
    with pytest.raises(BackpropagateError) as caught:
        Trainer(str(folder), steps=1).train(tmp_path / f"{HOSTILE}.jsonl")
    require_error_of_ours(caught.value)
    for arguments in (["list-runs"], ["list-runs", "--json"], ["export", str(folder)]):
        command(arguments)
        require_ours("".join(capfd.readouterr()))


@pytest.mark.parametrize("base", [HOSTILE, f"/x/{HOSTILE}", f"x`</a>/{MARKER}", "```\n# Title"])
def test_a_card_has_a_strangers_base_as_a_name_only(base: str) -> None:
    card = bare_card(base, "adapter")
    assert MARKER not in card and card.count("```") == 2
    require_ours(card)
    assert "base_model:" not in card and "\n# Title" not in card


# --- GGUF files and Ollama ---
def with_kind(folder: Path) -> Path:
    return write_gguf(folder / "a.gguf", kind=HOSTILE)


FILES: dict[str, Callable[[Path], Path]] = {
    "kind": with_kind,
    "template": lambda folder: write_gguf(folder / "a.gguf", "{% " + MARKER + " %}"),
    "a template that raises": lambda folder: write_gguf(
        folder / "a.gguf", CHATML + "{{ raise_exception('" + MARKER + "') }}"
    ),
    "name": lambda folder: write_gguf(folder / f"{MARKER}.gguf", template=None),
    "no GGUF": lambda folder: Path(shutil.copy(write_gguf(folder / "a.gguf"), folder / "b.gguf")),
}
FAULTS = [
    (endpoint, Fault(kind, HOSTILE))
    for endpoint in ("version", "tags", "blob", "upload", "create", "show", "chat")
    for kind in ("refuse", "page", *(["late"] if endpoint in ("create", "chat") else []))
]


def registered(path: Path) -> RunFolder:
    return carried_out(
        register.run, lambda store, paths: register_spec(str(path), "mine", store, paths, question="Hi?")
    )


@pytest.fixture
def ollama(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OllamaStandIn]:
    (tmp_path / "blobs").mkdir()
    with OllamaStandIn(tmp_path / "blobs", "0.17.0") as server:
        monkeypatch.setenv("OLLAMA_HOST", server.host)
        yield server


@pytest.mark.parametrize("plant", FILES)
def test_a_registration_repeats_nothing_that_a_file_says(
    plant: str, tmp_path: Path, ollama: OllamaStandIn, capfd: pytest.CaptureFixture[str]
) -> None:
    run = registered(FILES[plant](tmp_path))
    status = run_status(view(run, run.state()))
    assert not status.error or MARKER not in status.error.message
    assert not any(MARKER in warning for warning in status.warnings)
    require_ours(status.text())


@pytest.mark.parametrize(("endpoint", "fault"), FAULTS)
def test_a_registration_repeats_nothing_that_a_server_says(
    endpoint: Any, fault: Fault, tmp_path: Path, ollama: OllamaStandIn, capfd: pytest.CaptureFixture[str]
) -> None:
    ollama.faults[endpoint] = fault
    require_run_of_ours(registered(write_gguf(tmp_path / "a.gguf")), capfd)


# --- logs ---
@pytest.mark.parametrize("as_json", [False, True])
def test_a_line_of_the_log_is_one_line_without_commands_to_a_terminal(as_json: bool) -> None:
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    handler = Lines()
    handler.setFormatter(_Formatter(as_json))
    logging.getLogger().addHandler(handler)
    try:
        logger().warning(HOSTILE, file=HOSTILE)
        logging.getLogger("somebody").warning("%s", HOSTILE)
        try:
            raise ValueError(HOSTILE)
        except ValueError:
            logger().exception("failed")
    finally:
        logging.getLogger().removeHandler(handler)
    assert len(lines) == 3
    for line in lines:
        assert not set("\x1b\x07\u202e") & set(line)
        assert not any(part.startswith((MARKER, f"Next: {MARKER}")) for part in line.split("\n"))
    assert not any("\n" in line for line in lines[:2])
