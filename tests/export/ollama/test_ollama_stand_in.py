"""The stand-in server is one to Ollama's own Python client."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import ollama
import pytest
from ollama_stand_in import NO_TEMPLATE, OllamaStandIn
from tiny_gguf import CHATML, DEFAULT_SYSTEM, SMOLLM2, write_gguf

VERSIONS = ("0.12.6", "0.30.0", "0.34.1")
every_version = pytest.mark.parametrize("server", VERSIONS, indirect=True)


@pytest.fixture
def client(server: OllamaStandIn) -> Iterator[ollama.Client]:
    client = ollama.Client(host=server.host)
    yield client
    client.close()


def create(client: ollama.Client, path: Path, name: str = "mine", **arguments: object) -> list[str]:
    digest = client.create_blob(path)
    steps = client.create(name, files={path.name: digest}, stream=True, **arguments)  # type: ignore[call-overload]
    return [step.status for step in steps]


@every_version
def test_a_blob_becomes_a_model_that_is_listed_shown_asked_and_deleted(
    server: OllamaStandIn, client: ollama.Client, gguf: Path
) -> None:
    server.answers["Why?"] = "Because it is so."
    steps = create(client, gguf, system="Be brief.", parameters={"stop": ["<|im_end|>"], "num_ctx": 64})
    assert steps[0] == "parsing GGUF" and steps[-2:] == ["writing manifest", "success"]
    assert ("verifying conversion" in steps) is (server.version == "0.30.0")
    assert [model.model for model in client.list().models] == ["mine:latest"]
    shown = client.show("MINE")
    assert shown.parameters and '"<|im_end|>"' in shown.parameters and "num_ctx" in shown.parameters
    answer = client.chat("mine", [{"role": "user", "content": "Why?"}])
    assert answer.message.content == "Because it is so."
    parts = client.chat("mine", [{"role": "user", "content": "Why?"}], stream=True)
    assert "".join(part.message.content or "" for part in parts) == "Because it is so."
    assert client.delete("mine").status == "success" and not client.list().models


@every_version
@pytest.mark.parametrize(
    ("jinja", "detected"),
    [(CHATML, True), (SMOLLM2.replace(DEFAULT_SYSTEM, "You help."), True), (SMOLLM2, False)],
)
def test_the_template_in_force_depends_on_the_version_and_on_what_is_known(
    server: OllamaStandIn, client: ollama.Client, jinja: str, detected: bool, tmp_path: Path
) -> None:
    steps = create(client, write_gguf(tmp_path / "model.gguf", jinja))
    template = client.show("mine").template
    assert ("using autodetected template chatml" in steps) is detected
    if detected:
        assert template and template.startswith("{{- range .Messages }}")
    else:
        assert template == (NO_TEMPLATE if server.version < "0.30" else jinja)
    create(client, tmp_path / "model.gguf", template="{{ .Prompt }}!")
    assert client.show("mine").template == "{{ .Prompt }}!"


@pytest.mark.parametrize("server", ["0.17.6"], indirect=True)
def test_the_end_of_a_name_may_be_a_place_except_when_a_model_is_made(
    server: OllamaStandIn, client: ollama.Client, gguf: Path
) -> None:
    create(client, gguf, "mine:local")
    with pytest.raises(ollama.ResponseError, match="not found"):
        client.show("mine:local")
    create(client, gguf, "mine")
    client.delete("mine:local")
    assert [model.model for model in client.list().models] == ["mine:local"]
    with pytest.raises(ollama.ResponseError, match="remote"):
        client.chat("mine:v1-cloud", [{"role": "user", "content": "Why?"}])
    assert server.elsewhere == ["mine:v1-cloud"]


def test_a_copy_replaces_a_model_and_blobs_go_with_their_last_model(
    server: OllamaStandIn, client: ollama.Client, gguf: Path, tmp_path: Path
) -> None:
    create(client, gguf, "one")
    create(client, write_gguf(tmp_path / "other.gguf", SMOLLM2), "two")
    assert len(list(server.folder.iterdir())) == 2
    client.copy("two", "ONE")
    client.delete("two")
    assert [model.model for model in client.list().models] == ["one:latest"]
    assert len(list(server.folder.iterdir())) == 1
    assert client.show("one").template == SMOLLM2


@pytest.mark.parametrize("server", ["0.30.0"], indirect=True)
def test_a_server_that_checks_files_keeps_one_of_its_own_making(
    server: OllamaStandIn, client: ollama.Client, gguf: Path
) -> None:
    assert any(step.startswith("creating new layer") for step in create(client, gguf))
    (model,) = server.models.values()
    assert server.blob(model.digest).read_bytes() != gguf.read_bytes()


@pytest.mark.parametrize("server", ["0.34.1"], indirect=True)
def test_a_template_that_does_more_than_the_known_one_stays(
    server: OllamaStandIn, client: ollama.Client, tmp_path: Path
) -> None:
    jinja = CHATML + "{# tools #}"
    steps = create(client, write_gguf(tmp_path / "model.gguf", jinja))
    assert "using autodetected template chatml" in steps and client.show("mine").template == jinja
    steps = create(client, tmp_path / "model.gguf", template="{{ .Prompt }}!")
    assert not any("autodetected" in step for step in steps)


@every_version
def test_errors_come_before_the_stream_or_in_it(
    server: OllamaStandIn, client: ollama.Client, gguf: Path, tmp_path: Path
) -> None:
    with pytest.raises(ollama.ResponseError, match="invalid model name"):
        create(client, gguf, "no name")
    with pytest.raises(ollama.ResponseError, match="neither 'from' or 'files'"):
        list(client.create("mine", stream=True))
    junk = tmp_path / "junk.gguf"
    junk.write_bytes(b"junk" * 100)
    with pytest.raises(ollama.ResponseError, match="not in GGUF format") as late:
        create(client, junk)
    assert late.value.status_code == -1  # HTTP 200 and an error as the last line
    with pytest.raises(ollama.ResponseError, match="not found"):
        client.chat("mine", [{"role": "user", "content": "Why?"}])
    with pytest.raises(ollama.ResponseError, match="not found"):
        client.delete("mine")


@pytest.mark.parametrize("server", ["0.34.1"], indirect=True)
def test_adapters_quantising_and_paths_are_refused_by_the_newest(
    server: OllamaStandIn, client: ollama.Client, gguf: Path, tmp_path: Path
) -> None:
    with pytest.raises(ollama.ResponseError, match="no longer supported"):
        create(client, write_gguf(tmp_path / "adapter.gguf", kind="adapter"))
    with pytest.raises(ollama.ResponseError, match="only supported for safetensors"):
        create(client, gguf, quantize="q4_K_M")
    digest = client.create_blob(gguf)
    with pytest.raises(ollama.ResponseError, match="must be relative"):
        list(client.create("mine", files={str(gguf): digest}, stream=True))


@pytest.mark.parametrize("server", ["0.5.4"], indirect=True)
def test_a_server_of_modelfiles_wants_one(server: OllamaStandIn, client: ollama.Client, gguf: Path) -> None:
    with pytest.raises(ollama.ResponseError, match="path or modelfile are required") as refused:
        create(client, gguf)
    assert refused.value.status_code == 400


def test_blobs_are_known_by_their_digest_and_nothing_else(
    server: OllamaStandIn, client: ollama.Client
) -> None:
    import httpx

    other = "sha256:" + "0" * 64
    with httpx.Client(base_url=f"http://{server.host}") as plain:
        assert plain.head(f"/api/blobs/{other}").status_code == 404
        assert plain.head("/api/blobs/sha256:abc").status_code == 400
        refused = plain.post(f"/api/blobs/{other}", content=b"other content")
        assert refused.status_code == 400 and "digest mismatch" in refused.json()["error"]
        digest = "sha256:ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"
        assert plain.post(f"/api/blobs/{digest}", content=b"content").status_code == 201
        assert plain.head(f"/api/blobs/sha256:{hashlib.sha256(b'other content').hexdigest()}").is_success
        assert plain.post(f"/api/blobs/{digest}", content=b"content").status_code == 200
        assert plain.head(f"/api/blobs/{digest}").status_code == 200
        assert plain.get("/").text == "Ollama is running"
