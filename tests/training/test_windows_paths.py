"""Which paths of Windows, and which of macOS, are not what they look like."""

from __future__ import annotations

import os
from pathlib import Path, PureWindowsPath

import pytest

from backpropagate.training.errors import PathForbiddenError
from backpropagate.training.files import paths
from backpropagate.training.files.paths import PathPolicy
from backpropagate.training.files.windows_paths import is_device, reason_against
from backpropagate.web.keep_upload import plain_name

KNOWN = [PureWindowsPath(r"C:\Users\ann"), PureWindowsPath(r"\\nas\data\runs")]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (r"\\evil.example\share\rows.jsonl", "is on another machine"),
        ("//evil.example/share/rows.jsonl", "is on another machine"),
        (r"\\?\C:\Windows\x", "begins with \\\\?\\"),
        (r"\\?\UNC\evil.example\share\x", "begins with \\\\?\\"),
        (r"\\.\PhysicalDrive0", "begins with \\\\.\\"),
        (r"C:\Users\ann\.ssh::$INDEX_ALLOCATION\id_rsa", "has a colon in a name"),
        (r"C:\Users\ann\rows.jsonl:hidden", "has a colon in a name"),
        (r"\??\C:\Windows", "has a colon in a name"),
        (r"C:\Users\ann\nul", "has a device's name in it (nul)"),
        (r"C:\Users\ann\com1.jsonl", "has a device's name in it (com1.jsonl)"),
        (r"C:\Users\CON \x", "has a device's name in it (CON )"),
    ],
)
def test_what_is_no_file_of_this_machine_is_refused_by_its_text(path: str, reason: str) -> None:
    assert reason_against(PureWindowsPath(path), KNOWN) == reason


@pytest.mark.parametrize(
    "path",
    [r"C:\Users\ann\rows.jsonl", r"D:\null.jsonl", r"\\NAS\data\other", "rows.jsonl", "C:rows.jsonl", "~"],
)
def test_plain_paths_and_shares_of_permitted_folders_are_not(path: str) -> None:
    assert reason_against(PureWindowsPath(path), KNOWN) is None


def test_a_person_may_use_any_share_and_no_device() -> None:
    assert reason_against(PureWindowsPath(r"\\other\share\rows.jsonl"), None) is None
    assert reason_against(PureWindowsPath(r"\\.\COM1"), None)


def test_names_of_devices_count_with_any_ending() -> None:
    assert all(map(is_device, ("CON", "nul.txt", "Aux.tar.gz", "LPT9", "COM¹.x", "con .x")))
    assert not any(map(is_device, ("CONSOLE", "COM0", "COM10", "null", "x.con", "")))
    assert [plain_name(name) for name in ("CON.jsonl", "aux.1.csv", "console.csv")] == [
        "_CON.jsonl",
        "_aux.1.csv",
        "console.csv",
    ]


def test_the_home_of_runs_is_closed_under_its_name_in_other_letters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS, whose file systems know no case; here the second name is a link to the first."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    home, other = tmp_path / "bp", tmp_path / "BP"
    home.mkdir()
    (home / "http-token").write_text("secret")
    policy = PathPolicy.for_assistant([tmp_path], home)
    if not other.exists():
        monkeypatch.setattr(Path, "samefile", lambda self, there: str(self).lower() == str(there).lower())
    with pytest.raises(PathForbiddenError, match="home folder of runs"):
        policy.resolve(str(other / "http-token"), "dataset")


@pytest.mark.skipif(os.name == "nt", reason="paths of macOS")
def test_the_users_library_of_macos_is_closed_but_for_the_folders_of_clouds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(paths.sys, "platform", "darwin")
    policy = PathPolicy.for_assistant([], tmp_path / ".backpropagate")
    for closed in ("Library/Application Support/Claude/x.json", "library/x", "Library"):
        with pytest.raises(PathForbiddenError, match="hidden folder"):
            policy.resolve(str(tmp_path / closed), "dataset")
    for own in (
        "Library/Mobile Documents/rows.jsonl",
        "Library/CloudStorage/Dropbox/x",
        "Documents/Library/x",
    ):
        assert policy.resolve(str(tmp_path / own), "dataset")
    with pytest.raises(PathForbiddenError, match="system folder"):
        PathPolicy.for_person(tmp_path).resolve("/Library/x", "output", write=True)
