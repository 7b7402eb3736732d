"""Which paths may be touched, links included."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backpropagate.training.errors import PathForbiddenError
from backpropagate.training.files.paths import PathPolicy, looks_like_path
from backpropagate.training.files.uploads import uploads_folder
from backpropagate.training.next_step import then


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    user = tmp_path / "user"
    user.mkdir()
    monkeypatch.setenv("HOME", str(user))
    monkeypatch.setenv("USERPROFILE", str(user))
    return user


def test_the_users_home_and_the_roots_may_be_touched(user: Path, tmp_path: Path) -> None:
    policy = PathPolicy.for_assistant([tmp_path / "data"], user / ".backpropagate")
    assert policy.resolve(str(user / "a.jsonl"), "dataset") == str(user / "a.jsonl")
    assert policy.resolve("~/a.jsonl", "dataset") == str(user / "a.jsonl")
    assert policy.resolve(str(tmp_path / "data" / "b.jsonl"), "dataset")
    assert policy.resolve(str(user / ".backpropagate" / "models" / "m"), "model")


def test_of_the_uploaded_files_a_principal_may_read_its_own_only(user: Path) -> None:
    home = user / ".backpropagate"
    ada, eve, owner = (PathPolicy.for_assistant([], home).of(name) for name in ("i ada", "i eve", None))
    own = uploads_folder(home, "i ada") / "file-x" / "data.jsonl"
    assert ada.resolve(str(own), "dataset") and owner.resolve(str(own), "dataset")
    for path in (own, home / "files", own / ".." / ".." / ".." / "owner", Path(str(own).upper())):
        with pytest.raises(PathForbiddenError):
            eve.resolve(str(path), "dataset")
    again = PathPolicy.from_record(ada.recorded(), home)
    assert again.resolve(str(own), "dataset")
    with pytest.raises(PathForbiddenError):
        ada.resolve(str(own), "output", write=True)


@pytest.mark.parametrize("path", [".ssh/id_rsa", ".config/token.jsonl", "x/../.aws/credentials", ".env"])
def test_hidden_folders_of_the_home_may_not(user: Path, path: str) -> None:
    with pytest.raises(PathForbiddenError, match="dataset"):
        PathPolicy.for_assistant([], user / ".backpropagate").resolve(str(user / path), "dataset")


def test_a_link_out_of_the_roots_is_followed_and_refused(user: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.jsonl").write_text("{}")
    (user / "innocent.jsonl").symlink_to(tmp_path / "secret.jsonl")
    with pytest.raises(PathForbiddenError, match=r"secret\.jsonl is outside") as caught:
        PathPolicy.for_assistant([], user / ".backpropagate").resolve(str(user / "innocent.jsonl"), "dataset")
    assert caught.value.next == then("add_root", folder=...)


def test_relative_paths_are_refused_to_an_assistant_and_resolved_for_a_person(
    user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(user)
    with pytest.raises(PathForbiddenError, match="relative"):
        PathPolicy.for_assistant([user], user / ".backpropagate").resolve("a.jsonl", "dataset")
    assert PathPolicy.for_person(user).resolve("a.jsonl", "dataset") == str(user / "a.jsonl")


@pytest.mark.skipif(os.name == "nt", reason="folders of POSIX systems")
def test_of_var_only_what_belongs_to_users_is_permitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = PathPolicy.for_person(tmp_path)
    for system in ("/var", "/var/lib/x", "/var/log/x.jsonl", "/var/../var/spool/x", "/etc/x"):
        with pytest.raises(PathForbiddenError, match="system folder"):
            policy.resolve(system, "dataset")
    for own in ("/var/folders/ab/T/x", "/var/tmp/x", "/var/home/ann/x"):
        assert policy.resolve(own, "dataset")
    monkeypatch.setenv("HOME", "/var/root")
    assert policy.resolve("/var/root/x", "dataset")
    monkeypatch.setattr("tempfile.tempdir", "/var/cache/job-7")
    assert policy.resolve("/var/cache/job-7/x", "dataset")


def test_the_output_folder_of_the_web_page_may_be_written_though_it_is_in_the_home(user: Path) -> None:
    home = user / ".backpropagate"
    outputs = home / "ui-outputs"
    page = PathPolicy.for_assistant([outputs], home)
    assert page.resolve(str(outputs / "x"), "output", write=True)
    for policy, path in (
        (page, home / "runs" / "x"),
        (page, home / "x"),
        (PathPolicy.for_person(home), "/etc"),
    ):
        with pytest.raises(PathForbiddenError):
            policy.resolve(str(path), "output", write=True)
    with pytest.raises(PathForbiddenError):
        PathPolicy.for_assistant([], home).resolve(str(outputs / "x"), "output", write=True)


def test_credential_folders_are_refused_even_inside_a_root(user: Path) -> None:
    for policy in (PathPolicy.for_assistant([user / ".aws"], user), PathPolicy.for_person(user)):
        with pytest.raises(PathForbiddenError, match="credentials"):
            policy.resolve(str(user / ".aws" / "data.jsonl"), "dataset")


@pytest.mark.parametrize(
    "place",
    [
        ".kube/config",
        ".azure/tokens.json",
        ".config/gh/hosts.yml",
        ".mozilla/firefox/a.default/logins.json",
        ".config/google-chrome/Default/Cookies",
        ".local/share/keyrings/login.keyring",
        "Library/Keychains/login.keychain-db",
        "LIBRARY/KEYCHAINS/login.keychain-db",
        "AppData/Roaming/Mozilla/Firefox/Profiles/a/key4.db",
        "work/.SSH/id_ed25519",
        ".cache/huggingface/token",
        ".git-credentials",
    ],
)
def test_places_of_credentials_are_refused_whatever_the_root_and_the_case(user: Path, place: str) -> None:
    for root in (user, (user / place).parent, Path("/")):
        for policy in (
            PathPolicy.for_assistant([root], user / ".backpropagate"),
            PathPolicy.for_person(user),
        ):
            with pytest.raises(PathForbiddenError, match="credentials"):
                policy.resolve(str(user / place), "dataset")


def test_names_that_only_resemble_places_of_credentials_are_permitted(user: Path) -> None:
    policy = PathPolicy.for_assistant([user], user / ".backpropagate")
    for name in ("token", "ssh/a.jsonl", "huggingface/models/a", "config/gh/a.jsonl", "keyrings.jsonl"):
        assert policy.resolve(str(user / name), "dataset")


@pytest.mark.parametrize("given", ["/" + "x/" * 100_000, "/" + "x" * 1000, "/a\0b", "/" + "\0"])
def test_a_path_that_no_file_can_have_is_refused_with_its_argument(user: Path, given: str) -> None:
    with pytest.raises(PathForbiddenError, match="dataset: ") as caught:
        PathPolicy.for_assistant([], user / ".backpropagate").resolve(given, "dataset")
    assert len(caught.value.message) < 600


@pytest.mark.parametrize("name", ["chat_template.jinja", "README.md", "additional_chat_templates/rag.jinja"])
def test_a_file_of_a_model_that_is_a_link_follows_the_rules_of_its_folder(user: Path, name: str) -> None:
    model, key = user / "model", user / ".ssh" / "id_ed25519"
    (model / name).parent.mkdir(parents=True)
    (model / "config.json").symlink_to(model / "other.json")
    key.parent.mkdir()
    key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----")
    for policy in (PathPolicy.for_assistant([], user / "bp"), PathPolicy.for_person(user / "bp")):
        (model / name).unlink(missing_ok=True)
        policy.permit_links(model, "model")
        (model / name).symlink_to(key)
        with pytest.raises(PathForbiddenError, match=r"a link in model: .*id_ed25519 is in a"):
            policy.permit_links(model, "model")


def test_a_file_uri_and_a_tilde_name_a_path_for_everyone(user: Path) -> None:
    file = user / "my data" / "a#1.jsonl"
    for policy in (PathPolicy.for_assistant([], user / "h"), PathPolicy.for_person(user / "h")):
        for given in (file.as_uri(), file.as_uri().replace("file://", "file://localhost"), f"~/{file.name}"):
            assert Path(policy.resolve(given, "dataset")).name == "a#1.jsonl", given
        assert policy.resolve(file.as_uri().replace("file:", "FILE:"), "dataset") == str(file)


@pytest.mark.parametrize(
    "given", ["file://server/share/a.jsonl", "https://x.org/a.jsonl", "file:///a.jsonl#1", "~nobody-here/a"]
)
def test_what_names_no_file_of_this_machine_is_refused(user: Path, given: str) -> None:
    for policy in (PathPolicy.for_assistant([], user), PathPolicy.for_person(user)):
        with pytest.raises(PathForbiddenError, match="dataset"):
            policy.resolve(given, "dataset")


def test_a_file_uri_is_a_path_and_never_another_name(user: Path) -> None:
    assert looks_like_path("file:///m/model") and not looks_like_path("files/model")


@pytest.mark.parametrize("place", ["http-token", ".env", "audit.jsonl", "requests/key.json", "active", ""])
def test_of_the_home_of_runs_only_runs_and_models_are_read(user: Path, place: str) -> None:
    home = user / ".backpropagate"
    policy = PathPolicy.for_assistant([], home)
    assert policy.resolve(str(home / "runs" / "a" / "adapter"), "model")
    assert policy.resolve(str(home / "models" / "b"), "model")
    with pytest.raises(PathForbiddenError, match="is in the home folder of runs and models"):
        policy.resolve(str(home / place), "dataset")
