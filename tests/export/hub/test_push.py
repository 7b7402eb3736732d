"""A push, with the real huggingface_hub against a local stand-in of the Hub."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from hub_stand_in import SIGNATURE, TOKEN, Fault, HubStandIn, Repository
from huggingface_hub import ModelCard
from tiny_lora import change_json
from waiting import wait_until

from backpropagate.training import events
from backpropagate.training.errors import HubPushError, InputError, PathForbiddenError, TrainingAbortedError
from backpropagate.training.export.hub.model_card import bare_card
from backpropagate.training.export.hub.published_files import published_files
from backpropagate.training.export.hub.push import Destination, Pushed, bytes_under_way, live_bars, push
from backpropagate.training.export.merged.safetensors import write_merged
from backpropagate.training.files.paths import PathPolicy
from backpropagate.training.next_step import then
from backpropagate.training.runs.folder import RunFolder

REPO = "me/tickets"
# Of the library's own call into its HTTP library.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def adapter(trained: RunFolder) -> Path:
    return trained.adapter_path


@pytest.fixture
def merged(tmp_path: Path) -> Path:
    """A model of two shards, without weights that mean anything."""
    folder = tmp_path / "merged"
    folder.mkdir()
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for name in names:
        (folder / name).write_bytes(os.urandom(300_000))
    index = {"weight_map": {"a": names[0], "b": names[1]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text("{}")
    (folder / "README.md").write_text("---\nbase_model: Qwen/Qwen2.5-3B-Instruct\n---\n# Merged\n")
    return folder


def pushed(folder: Path, *, reports: list[str] | None = None, **options: Any) -> Pushed:
    should_stop: Callable[[], bool] = options.pop("should_stop", lambda: False)
    repo = options.pop("repo", REPO)
    told = [] if reports is None else reports

    def report(event: events.Event) -> None:
        assert isinstance(event, events.Phase) and event.phase == "uploading"
        told.append(event.message)

    return push(
        published_files(folder, lambda path: None),
        Destination(repo, **options),
        report,
        should_stop,
    )


def test_an_adapter_is_published_with_its_card_and_nothing_of_this_machine(
    hub: HubStandIn, adapter: Path
) -> None:
    (adapter / "worker.log").write_text("of this machine")
    (adapter / "provenance.json").write_text('{"path": "/home/me"}')
    result = pushed(adapter)
    repository = hub.repositories[REPO]
    assert repository.private and result.created and result.private
    assert (
        set(repository.files)
        == set(result.files)
        == {
            *("README.md", "adapter_config.json", "adapter_model.safetensors"),
            *("chat_template.jinja", "tokenizer.json", "tokenizer_config.json"),
        }
    )
    assert (
        repository.files["adapter_model.safetensors"] == (adapter / "adapter_model.safetensors").read_bytes()
    )
    assert json.loads(repository.files["adapter_config.json"])["base_model_name_or_path"] == "tiny-llama"
    assert "local_files_only" not in json.loads(repository.files["tokenizer_config.json"])
    assert ModelCard(repository.files["README.md"].decode()).data["library_name"] == "peft"
    root = str(adapter.anchor + adapter.parts[1] + "/").encode()
    assert not any(root in content for content in repository.files.values())
    assert result.url == f"{hub.endpoint}/{REPO}" and result.commit == repository.head


def test_additional_chat_templates_travel_from_the_base_to_the_hub(
    hub: HubStandIn, tiny_model: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(tiny_model, tmp_path / "base"))
    (base / "additional_chat_templates").mkdir()
    (base / "additional_chat_templates" / "rag.jinja").write_text("{{ documents }}", "utf-8")
    (base / "additional_chat_templates" / "notes.txt").write_text("of this machine", "utf-8")
    write_merged(base, None, tmp_path / "merged", bare_card("tiny", "merged"))
    pushed(tmp_path / "merged")
    files = hub.repositories[REPO].files
    assert files["additional_chat_templates/rag.jinja"] == b"{{ documents }}"
    assert not [name for name in files if name.endswith(".txt")]

    from transformers import AutoTokenizer

    for name, content in files.items():
        path = tmp_path / "downloaded" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "downloaded", local_files_only=True)
    assert tokenizer.chat_template["rag"] == "{{ documents }}"


def test_a_token_in_an_additional_chat_template_is_not_published(
    hub: HubStandIn, adapter: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(adapter, tmp_path / "copy"))
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text(f"{{# {TOKEN} #}}", "utf-8")
    with pytest.raises(HubPushError, match=r"additional_chat_templates/tool_use\.jinja seems to contain"):
        pushed(folder)
    assert REPO not in hub.repositories


def test_a_merged_model_is_published_with_the_bytes_that_are_done(hub: HubStandIn, merged: Path) -> None:
    reports: list[str] = []
    pushed(merged, reports=reports, private=False)
    repository = hub.repositories[REPO]
    assert not repository.private
    for path in merged.iterdir():
        assert (
            hashlib.sha256(repository.files[path.name]).digest() == hashlib.sha256(path.read_bytes()).digest()
        )
    assert "uploaded model-00001-of-00002.safetensors: 0.3 of 0.6 MB" in reports
    assert "uploaded model-00002-of-00002.safetensors: 0.6 of 0.6 MB" in reports


def test_a_large_file_goes_in_parts(hub: HubStandIn, merged: Path) -> None:
    hub.part_bytes = 100_000
    pushed(merged)
    assert len(hub.uploads()) == 6
    name = "model-00002-of-00002.safetensors"
    assert hub.repositories[REPO].files[name] == (merged / name).read_bytes()


def test_pushing_again_is_a_new_commit_with_what_has_changed(hub: HubStandIn, merged: Path) -> None:
    first = pushed(merged)
    hub.asked.clear()
    (merged / "model-00002-of-00002.safetensors").write_bytes(b"better")
    second = pushed(merged)
    assert not second.created and second.commit != first.commit and len(hub.uploads()) == 1
    assert hub.repositories[REPO].files["model-00002-of-00002.safetensors"] == b"better"
    assert pushed(merged).commit == second.commit, "nothing has changed"


# --- Interrupted. ---
def test_a_connection_that_breaks_once_is_taken_up_again_by_itself(hub: HubStandIn, merged: Path) -> None:
    hub.faults = [Fault("PUT /lfs/", cut=True), Fault("PUT /lfs/", status=500), Fault("batch", status=429)]
    pushed(merged)
    assert len(hub.uploads()) == 4
    name = "model-00001-of-00002.safetensors"
    assert hub.repositories[REPO].files[name] == (merged / name).read_bytes()


def test_a_push_that_lost_the_network_goes_on_where_it_was(hub: HubStandIn, merged: Path) -> None:
    second = hashlib.sha256((merged / "model-00002-of-00002.safetensors").read_bytes()).hexdigest()
    hub.faults = [Fault(f"PUT /lfs/{second}", cut=True, times=99)]
    with pytest.raises(HubPushError) as caught:
        pushed(merged)
    assert caught.value.retryable and "upload resumes" in str(caught.value.hint)
    assert hub.repositories[REPO].files == {}, "a repository is never half filled"
    hub.faults.clear()
    hub.asked.clear()
    pushed(merged)
    assert hub.uploads() == [f"PUT /lfs/{second}"]


def test_cancelling_in_the_middle_of_a_file_leaves_the_repository_as_it_was(
    hub: HubStandIn, merged: Path
) -> None:
    release = Event()
    hub.faults = [Fault("PUT /lfs/", hold=release, times=99)]
    try:
        with pytest.raises(TrainingAbortedError, match="the repository is unchanged"):
            pushed(merged, should_stop=lambda: bool(hub.uploads()))
    finally:
        hub.faults.clear()
        release.set()
    wait_until(lambda: hub.objects, "the upload that was left behind")
    assert hub.repositories[REPO].files == {}


# --- Refused. ---
@pytest.mark.parametrize(
    ("fault", "words", "hint", "retryable"),
    [
        (Fault("create", 401, "Invalid username or password."), "401", "valid token", False),
        (Fault("create", 403, "You don't have the rights"), "rights", "write permission", False),
        (Fault("preupload", 403, "Forbidden"), "403", "write permission", False),
        (
            Fault("preupload", 403, "Private repository storage limit reached"),
            "no storage left",
            "billing",
            False,
        ),
        (Fault("commit", 409, "conflict"), "409", "upload resumes", True),
        (Fault("commit", 503, "down"), "503", "upload resumes", True),
        (Fault("GET /api/models", 429, "slow down"), "429", "wait", True),
    ],
)
def test_what_the_hub_refuses_is_told_with_the_next_step(
    fault: Fault, words: str, hint: str, retryable: bool, hub: HubStandIn, adapter: Path
) -> None:
    fault.times = 99
    hub.faults = [fault]
    with pytest.raises(HubPushError) as caught:
        pushed(adapter)
    error = caught.value
    assert error.code == "DEP_HUB_PUSH_FAILED" and error.retryable is retryable
    assert words in f"{error.message} {error.untrusted}" and hint in str(error.hint), error.sentence()
    assert fault.message not in error.message


def test_without_a_token_nothing_is_asked_of_the_hub(
    hub: HubStandIn, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubPushError, match="No access token") as caught:
        pushed(adapter)
    assert "HF_TOKEN" in str(caught.value.hint) and hub.asked == []


@pytest.mark.parametrize("token", [TOKEN + "x", "a-token-of-another-form"])
def test_neither_errors_nor_output_hold_the_token_or_a_signed_address(
    token: str,
    hub: HubStandIn,
    merged: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    hub.token = token
    for fault in (
        Fault("create", 403, f"no rights for {token}"),
        Fault("PUT", 403, f"no {SIGNATURE}"),
        Fault("PUT", cut=True),
    ):
        fault.times = 99
        hub.faults = [fault]
        with pytest.raises(HubPushError) as caught:
            pushed(merged)
        told = caught.value.sentence() + repr(caught.value) + str(caught.value.__cause__)
        told += "".join(capfd.readouterr())
        assert token not in told and "TopSecretSignature" not in told, told


def test_a_name_that_is_none_is_refused(hub: HubStandIn, adapter: Path) -> None:
    with pytest.raises(HubPushError, match="not a repository name"):
        pushed(adapter, repo="me/../tickets")


def test_an_unreachable_hub_is_worth_another_try(hub: HubStandIn, adapter: Path) -> None:
    hub.close()
    with pytest.raises(HubPushError, match="connection to the Hub failed") as caught:
        pushed(adapter)
    assert caught.value.retryable


def test_offline_means_offline(hub: HubStandIn, adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubPushError, match="HF_HUB_OFFLINE"):
        pushed(adapter)


# --- What is there already. ---
def test_a_repository_that_holds_something_else_is_left_alone_unless_asked(
    hub: HubStandIn, adapter: Path
) -> None:
    theirs = {"pytorch_model.bin": b"theirs", "notes.md": b"theirs"}
    hub.repositories[REPO] = Repository(files=dict(theirs))
    with pytest.raises(HubPushError, match=r"other weights: pytorch_model\.bin") as caught:
        pushed(adapter)
    assert caught.value.next == then("ask_again", overwrite=True)
    assert hub.repositories[REPO].files == theirs and hub.uploads() == []
    pushed(adapter, overwrite=True)
    held = hub.repositories[REPO].files
    assert "pytorch_model.bin" not in held and held["notes.md"] == b"theirs"


def test_a_model_of_another_base_is_left_alone_and_an_empty_repository_is_filled(
    hub: HubStandIn, merged: Path
) -> None:
    hub.repositories[REPO] = Repository(files={".gitattributes": b"", "README.md": b"# Soon"})
    pushed(merged, overwrite=True)
    (merged / "README.md").write_text("---\nbase_model: other/base\n---\n")
    with pytest.raises(HubPushError, match=r"a model made from Qwen/Qwen2\.5-3B-Instruct"):
        pushed(merged)


HAND_WRITTEN = b"---\nlicense: mit\n---\n# written by hand\n"


def test_a_card_that_somebody_wrote_is_kept_unless_asked(hub: HubStandIn, adapter: Path) -> None:
    hub.repositories[REPO] = Repository(files={"README.md": HAND_WRITTEN})
    held = hub.repositories[REPO].files
    for _ in range(2):  # the second push finds its own weights beside the card
        result = pushed(adapter)
        assert result.card_kept and "README.md" not in result.files and held["README.md"] == HAND_WRITTEN
    assert "adapter_model.safetensors" in held
    assert not pushed(adapter, overwrite=True).card_kept and held["README.md"] != HAND_WRITTEN


def test_a_card_of_ours_is_renewed_until_somebody_edits_it(hub: HubStandIn, adapter: Path) -> None:
    pushed(adapter)
    held = hub.repositories[REPO].files
    card = adapter / "README.md"
    before = card.read_text("utf-8")
    try:
        card.write_text(bare_card(None, "adapter"), encoding="utf-8")
        assert not pushed(adapter).card_kept and b"are not recorded" in held["README.md"]
        held["README.md"] = held["README.md"].replace(b"are not recorded", b"are splendid")
        assert pushed(adapter).card_kept and b"splendid" in held["README.md"]
    finally:
        card.write_text(before, encoding="utf-8")


def test_the_visibility_of_a_repository_never_changes(hub: HubStandIn, adapter: Path) -> None:
    hub.repositories[REPO] = Repository(private=False)
    with pytest.raises(HubPushError, match="is public") as caught:
        pushed(adapter)
    assert caught.value.next == then("ask_again", private=False)
    assert not pushed(adapter, private=False).private
    hub.repositories[REPO] = Repository(private=True)
    assert pushed(adapter, private=False).private and hub.repositories[REPO].private


def test_a_commit_of_somebody_else_in_between_is_not_overwritten(hub: HubStandIn, adapter: Path) -> None:
    hub.repositories[REPO] = Repository()
    answered = hub.answer

    def answer(method: str, path: str, body: bytes) -> tuple[int, Any]:
        if "preupload" in path:
            hub.repositories[REPO].commits.append("f" * 40)
        return answered(method, path, body)

    hub.answer = answer  # type: ignore[method-assign]
    with pytest.raises(HubPushError, match="412") as caught:
        pushed(adapter)
    assert caught.value.retryable


# --- What is published. ---
PEFT_CARD = """---
base_model: {base}
library_name: peft
license: mit
tags:
- base_model:adapter:{base}
- lora
---
# Model Card for Model ID

Fine-tuned from [{base}](https://huggingface.co/{base}) with `{data}`; see https://example.org/home/docs/a.
Run /usr/local/bin/python-of-nobody, or `path/to/model`.
"""


@pytest.mark.parametrize(
    "base, data",
    [
        ("/home/jo/secret-folder/base-7b", "/mnt/secret-folder/tickets.jsonl"),
        ("C:\\Users\\jo\\secret-folder\\base-7b", "\\\\server\\secret-folder\\tickets.jsonl"),
        ("~/secret-folder/base-7b", "file:///Users/jo/secret-folder/tickets.jsonl"),
    ],
)
def test_no_path_of_this_machine_is_in_a_card_that_another_program_wrote(
    hub: HubStandIn, adapter: Path, tmp_path: Path, base: str, data: str
) -> None:
    folder = tmp_path / "secret-folder" / "plain"
    shutil.copytree(adapter, folder)
    change_json(folder / "adapter_config.json", base_model_name_or_path=base, trained_with={"data": [data]})
    card = PEFT_CARD.format(base=base, data=data) + f"Saved in {folder}.\n"
    (folder / "README.md").write_text(card, encoding="utf-8")
    pushed(folder)
    held = hub.repositories[REPO].files
    assert not [name for name, content in held.items() if b"secret-folder" in content]
    shown = held["README.md"].decode()
    assert ModelCard(shown).data.to_dict() == {"library_name": "peft", "license": "mit", "tags": ["lora"]}
    assert "[base-7b]" in shown and "`tickets.jsonl`" in shown and "Saved in plain." in shown
    assert "https://example.org/home/docs/a." in shown and "/usr/local/bin/python-of-nobody" in shown
    assert "`path/to/model`" in shown


def test_a_file_with_an_access_token_is_not_published(hub: HubStandIn, merged: Path) -> None:
    (merged / "README.md").write_text("---\ntags: [x]\n---\nlogin hf_" + "a" * 34)
    with pytest.raises(HubPushError, match=r"README\.md seems to contain an access token"):
        pushed(merged)
    assert hub.asked == []


def test_a_link_out_of_what_may_be_read_is_not_followed(merged: Path, home: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / ".ssh"
    elsewhere.mkdir()
    (elsewhere / "id").write_bytes(b"key")
    (merged / "tokenizer.model").symlink_to(elsewhere / "id")
    with pytest.raises(PathForbiddenError, match="credentials"):
        published_files(merged, PathPolicy.for_person(home).permit)


def test_a_folder_that_is_neither_adapter_nor_model_is_refused(tmp_path: Path, merged: Path) -> None:
    with pytest.raises(InputError, match="lacks"):
        published_files(tmp_path / "none", lambda path: None)
    (merged / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(InputError, match="model-00002"):
        published_files(merged, lambda path: None)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match=r"adapter_model\.safetensors"):
        published_files(tmp_path, lambda path: None)


def test_a_folder_without_a_card_gets_one(adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/base"}')
    (tmp_path / "adapter_model.safetensors").write_bytes(b"w")
    files = {file.name: file.content for file in published_files(tmp_path, lambda path: None)}
    card = files["README.md"]
    assert isinstance(card, bytes) and ModelCard(card.decode()).data["base_model"] == "owner/base"


def test_the_librarys_progress_bars_tell_how_much_of_a_file_has_gone(merged: Path) -> None:
    from huggingface_hub.utils import tqdm_stream_file
    from huggingface_hub.utils._xet_progress_reporting import XetUploadProgressReporter

    earlier = live_bars()
    assert bytes_under_way(earlier) == 0
    with tqdm_stream_file(merged / "model-00001-of-00002.safetensors") as file:
        file.read(1000)
        assert bytes_under_way(earlier) == 1000
    reporter = XetUploadProgressReporter()
    report = SimpleNamespace(
        total_bytes=9000,
        total_bytes_completed=2000,
        total_bytes_completion_rate=1.0,
        total_transfer_bytes=9000,
        total_transfer_bytes_completed=1500,
        total_transfer_bytes_completion_rate=1.0,
        shard=None,
    )
    reporter.update_progress(report, {})
    assert bytes_under_way(earlier) == 2000
    reporter.close()
