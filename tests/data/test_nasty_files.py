"""Files as they come: each gives its rows, or the stated code and line; none hangs or exhausts memory."""

# ruff: noqa: E501 - one file a line

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from backpropagate.training.config.specs import DataGroup
from backpropagate.training.data.check import Checked, check
from backpropagate.training.data.readers.decoding import MAX_ROW_BYTES
from backpropagate.training.data.readers.sources import open_source
from backpropagate.training.errors import DatasetError, InputError, MissingExtraError, PathForbiddenError

GOOD = json.dumps({"prompt": "Hi", "completion": "Hello"})
PARSE, VALIDATION = "INPUT_DATASET_PARSE_FAILED", "INPUT_DATASET_VALIDATION_FAILED"
FORMAT, NOT_FOUND, INVALID = (
    "INPUT_DATASET_FORMAT_UNSUPPORTED",
    "INPUT_DATASET_NOT_FOUND",
    "INPUT_DATASET_INVALID",
)
LONGEST_S = 10


def lines(*rows: object) -> bytes:
    return "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows).encode()


def turns(*roles: str) -> dict[str, object]:
    return {"messages": [{"role": role, "content": "x"} for role in roles]}


def zstd(data: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor().compress(data)


BOMB = gzip.compress(b'{"text": "' + b"a" * 2**24 + b'"}\n', 9) * 40
"""Half a megabyte that expands to 640 MB."""

# name, content, and what comes of it: the number of rows, or a code with the places it names
FILES: list[tuple[str, bytes, int | tuple[str, list[str]]]] = [
    ("good.jsonl", lines(GOOD, GOOD), 2),
    ("no_last_newline.jsonl", lines(GOOD), 1),
    ("malformed_middle.jsonl", lines(GOOD, "{'prompt': 1}", GOOD), (PARSE, ["malformed_middle.jsonl:2"])),
    ("mixed_formats.jsonl", lines(GOOD, turns("user", "assistant"), {"text": "x"}), 3),
    ("trailing_comma.jsonl", lines('{"prompt": "a", "completion": "b",}'), (PARSE, ["trailing_comma.jsonl:1"])),
    ("nan.jsonl", lines(GOOD, '{"text": NaN}'), (PARSE, ["nan.jsonl:2"])),
    ("infinity.jsonl", lines('{"text": -Infinity}'), (PARSE, ["infinity.jsonl:1"])),
    ("nested_quotes.jsonl", lines('{"text": "he said "no""}'), (PARSE, ["nested_quotes.jsonl:1"])),
    ("two_on_a_line.jsonl", lines(f"{GOOD} {GOOD}"), (PARSE, ["two_on_a_line.jsonl:1"])),
    ("row_is_array.jsonl", lines(GOOD, "[1]"), (PARSE, ["row_is_array.jsonl:2"])),
    ("row_is_null.jsonl", lines("null"), (PARSE, ["row_is_null.jsonl:1"])),
    ("ten_megabytes.jsonl", lines({"text": "a b " * 2_500_000}, GOOD), 2),
    ("too_long.jsonl", b'{"text": "' + b"a" * MAX_ROW_BYTES + b'"}\n' + lines(GOOD), (PARSE, ["too_long.jsonl:1"])),
    ("deep.jsonl", lines(GOOD, "[" * 100_000), (PARSE, ["deep.jsonl:2"])),
    ("huge_number.jsonl", lines('{"text": ' + "9" * 5000 + "}"), (PARSE, ["huge_number.jsonl:1"])),
    ("half_surrogate.jsonl", lines(r'{"text": "\ud83d"}'), (PARSE, ["half_surrogate.jsonl:1"])),
    ("nul_bytes.jsonl", lines(GOOD) + b'\n{"text": "a\0b"}', (PARSE, ["nul_bytes.jsonl:2"])),
    ("latin_1.jsonl", lines(GOOD) + b'\n{"text": "caf\xe9"}', (PARSE, ["latin_1.jsonl:2"])),
    ("bom.jsonl", b"\xef\xbb\xbf" + lines(GOOD), 1),
    ("utf_16.jsonl", f"{GOOD}\n{GOOD}\u010a".encode("utf-16"), (PARSE, ["utf_16.jsonl:2"])),
    ("utf_16_le.jsonl", b"\xff\xfe" + f"{GOOD}\r\n{GOOD}\n".encode("utf-16-le"), 2),
    ("utf_16_be.jsonl", b"\xfe\xff" + f'{GOOD}\n{{"text": "\u0a0a\u0d0a"}}'.encode("utf-16-be"), 2),
    ("utf_16_unmarked.jsonl", GOOD.encode("utf-16-le"), (PARSE, ["utf_16_unmarked.jsonl"])),
    ("utf_16_odd.jsonl", b"\xff\xfe" + GOOD.encode("utf-16-le") + b"\x00", (PARSE, ["utf_16_odd.jsonl:1"])),
    ("utf_32.jsonl", GOOD.encode("utf-32"), (PARSE, ["utf_32.jsonl"])),
    ("crlf.jsonl", f"{GOOD}\r\n\r\n{GOOD}\r\n".encode(), 2),
    ("cr_only.jsonl", f"{GOOD}\r{GOOD}\r".encode(), (PARSE, ["cr_only.jsonl:1"])),
    ("line_separator.jsonl", lines(json.dumps({"text": "a\u2028b"}, ensure_ascii=False)), 1),
    ("empty.jsonl", b"", (INVALID, [])),
    ("blank_lines.jsonl", b"\n \n\t\n", (INVALID, [])),
    ("empty_role.jsonl", lines(GOOD, {"messages": [{"role": "", "content": "x"}]}), (VALIDATION, ["empty_role.jsonl:2"])),
    ("only_system.jsonl", lines(turns("system"), turns("system")), (VALIDATION, ["only_system.jsonl:1", "only_system.jsonl:2"])),
    ("swapped_roles.jsonl", lines(GOOD, turns("assistant", "user")), (VALIDATION, ["swapped_roles.jsonl:2"])),
    ("content_is_number.jsonl", lines({"messages": [{"role": "user", "content": 1}]}), (VALIDATION, ["content_is_number.jsonl:1"])),
    ("image.jsonl", lines({"messages": [{"role": "user", "content": [{"type": "image"}]}]}), (VALIDATION, ["image.jsonl:1"])),
    ("messages_null.jsonl", lines({"messages": None}), (VALIDATION, ["messages_null.jsonl:1"])),
    ("unknown_keys.jsonl", lines({"foo": "bar"}), (FORMAT, ["unknown_keys.jsonl:1"])),
    ("preferences.jsonl", lines({"chosen": "a", "rejected": "b"}), (FORMAT, ["preferences.jsonl:1"])),
    ("empty_answer.jsonl", lines({"question": "a", "answer": " "}), (VALIDATION, ["empty_answer.jsonl:1"])),
    ("array.json", f"[\n{GOOD},\n{GOOD}\n]\n".encode(), 2),
    ("array_of_one_line.json", f"[{', '.join([GOOD] * 5000)}]".encode(), 5000),
    ("array_broken_row.json", f'[\n{GOOD},\n{{"prompt": oops}},\n{GOOD}]'.encode(), (PARSE, ["array_broken_row.json:3"])),
    ("array_trailing_comma.json", f"[{GOOD},\n]".encode(), (PARSE, ["array_trailing_comma.json:2"])),
    ("array_unclosed.json", f"[\n{GOOD},\n{GOOD}".encode(), (PARSE, ["array_unclosed.json:3"])),
    ("array_cut_in_row.json", f'[\n{GOOD},\n{{"prompt": "a'.encode(), (PARSE, ["array_cut_in_row.json:3"])),
    ("array_more_text.json", f"[{GOOD}]\n{GOOD}".encode(), (PARSE, ["array_more_text.json:2"])),
    ("array_empty.json", b"[ ]", (INVALID, [])),
    ("columns.json", json.dumps({"prompt": ["a", "b"], "completion": ["c", "d"]}).encode(), 2),
    ("columns_differ.json", json.dumps({"prompt": ["a"], "completion": ["c", "d"]}).encode(), (PARSE, [])),
    ("wrapped.json", json.dumps({"data": [json.loads(GOOD)] * 3}, indent=1).encode(), 3),
    ("one_row.json", json.dumps(turns("user", "assistant"), indent=1).encode(), 1),
    ("object_broken.json", b'{\n"data": [\n{"prompt": }]}', (PARSE, ["object_broken.json:3"])),
    ("really_lines.json", lines(GOOD, GOOD, GOOD), 3),
    ("string.json", b'"hello"', (PARSE, ["string.json:1"])),
    ("good.csv", b'prompt,completion\n"a\nb",c\nd,e\n', 2),
    ("embedded_newline_bad.csv", b'prompt,completion\n"a\nb",c\nd\n', (PARSE, ["embedded_newline_bad.csv:4"])),
    ("semicolons.csv", b"question;answer\n1,5?;yes\n", 1),
    ("good.tsv", b"prompt\tcompletion\na, b\tc\n", 1),
    ("unclosed_quote.csv", b'prompt,completion\na,b\n"c,d\ne,f\n', (PARSE, ["unclosed_quote.csv:3"])),
    ("many_cells.csv", b"prompt,completion\na,b\na,b,c\n", (PARSE, ["many_cells.csv:3"])),
    ("header_twice.csv", b"prompt,prompt\na,b\n", (FORMAT, ["header_twice.csv:1"])),
    ("header_empty.csv", b"prompt,,x\na,b,c\n", (FORMAT, ["header_empty.csv:1"])),
    ("nul_bytes.csv", b"prompt,completion\na,b\0\n", (PARSE, ["nul_bytes.csv:2"])),
    ("latin_1.csv", b"prompt,completion\nok,ok\ncaf\xe9,b\n", (PARSE, ["latin_1.csv:3"])),
    ("messages.csv", b'messages\n"[{""role"": ""user"", ""content"": ""a""}, {""role"": ""assistant"", ""content"": ""b""}]"\n', 1),
    ("python_messages.csv", b"messages\n\"[{'role': 'user'}]\"\n", (PARSE, ["python_messages.csv:2"])),
    ("large_cell.csv", b"prompt,completion\na," + b"x" * 1_000_000 + b"\n", 1),
    ("no_parquet.parquet", b"hello, this is text", (PARSE, ["no_parquet.parquet"])),
    ("empty.parquet", b"", (PARSE, ["empty.parquet"])),
    ("document.txt", b"One line.\n\nAnother one.\n", 1),
    ("notes.md", b"# Title\n\nText.\n", 1),
    ("binary.txt", b"abc\0\0def", (PARSE, ["binary.txt:1"])),
    ("empty.txt", b"\n\n", (INVALID, [])),
    ("good.jsonl.gz", gzip.compress(lines(GOOD, GOOD)), 2),
    ("good.csv.gz", gzip.compress(b"prompt,completion\na,b\n"), 1),
    ("unnamed_gzip.jsonl", gzip.compress(lines(GOOD)), 1),
    ("empty.jsonl.gz", b"", (INVALID, [])),
    ("not_gzip.jsonl.gz", lines(GOOD), (FORMAT, ["not_gzip.jsonl.gz"])),
    ("cut.jsonl.gz", gzip.compress(lines(*[GOOD] * 999))[:-20], (PARSE, ["cut.jsonl.gz"])),
    ("garbled.jsonl.gz", gzip.compress(lines(GOOD))[:12] + b"\xff" * 40, (PARSE, ["garbled.jsonl.gz"])),
    ("bomb.jsonl.gz", BOMB, (PARSE, ["bomb.jsonl.gz"])),
    ("good.jsonl.zst", zstd(lines(GOOD, GOOD)), 2),
    ("cut.jsonl.zst", zstd(lines(*[f"{GOOD[:-1]} {n}" for n in range(999)]))[:40], (PARSE, ["cut.jsonl.zst"])),
    ("bomb.jsonl.zst", zstd(b'{"text": "' + b"a" * 2**24 + b'"}\n') * 40, (PARSE, ["bomb.jsonl.zst"])),
    ("letter.docx", b"PK\x03\x04", (FORMAT, ["letter.docx"])),
    ("no_extension", lines(GOOD), (FORMAT, ["no_extension"])),
]  # fmt: skip


def checked(source: Path | str, **settings: object) -> Checked:
    result = check(DataGroup.model_validate({"source": str(source), **settings}))
    result.raise_if_unusable()
    return result


@pytest.mark.parametrize(
    "name, content",
    [
        ("a.jsonl", lines(GOOD) + b'\n{"text": "caf\x81"}'),
        ("a.json", b'[{"text": "caf\x81"}]'),
        ("a.csv", b"prompt,completion\nok,ok\ncaf\x81,b\n"),
        ("a.txt", b"caf\x81\n"),
    ],
)
def test_a_file_in_no_known_encoding_is_first_of_all_to_be_saved_as_such(
    tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError) as error:
        checked(tmp_path / name)
    hint = error.value.hint or ""
    assert hint.startswith("Save the file as UTF-8 (iconv -f latin1 -t utf-8)")
    assert ('on_bad_rows="skip"' in hint) == (name in ("a.jsonl", "a.csv")), "only where a row is left"


@pytest.mark.parametrize("name, content, expected", FILES, ids=[name for name, _, _ in FILES])
def test_a_file_gives_its_rows_or_the_stated_code_and_line(
    tmp_path: Path, name: str, content: bytes, expected: int | tuple[str, list[str]]
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    start = time.monotonic()
    if isinstance(expected, int):
        assert checked(path).usable == expected
    else:
        code, places = expected
        with pytest.raises(DatasetError) as error:
            checked(path)
        assert error.value.code == code
        assert all(place in error.value.message for place in places), error.value.message
    assert time.monotonic() - start < LONGEST_S


def test_there_are_at_least_forty_of_them() -> None:
    assert len(FILES) >= 40


def test_bad_rows_do_not_hide_the_good_ones_around_them(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(f'[{GOOD}, {{"prompt": oops}}, "x", nope, {GOOD}]')
    result = check(DataGroup(source=str(tmp_path / "a.json")))
    assert (result.rows, result.usable) == (5, 2)


def code_of(action: Callable[[], object]) -> str:
    with pytest.raises(InputError) as error:
        action()
    return error.value.code


def test_a_missing_file_a_pattern_without_match_and_an_empty_folder_are_not_found(tmp_path: Path) -> None:
    for name in ("missing.jsonl", "*.jsonl", ""):
        assert code_of(lambda name=name: checked(tmp_path / name)) == NOT_FOUND


def test_a_folder_named_like_a_file_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").mkdir()
    (tmp_path / "a.jsonl" / "b.jsonl").write_text(GOOD)
    assert checked(tmp_path / "a.jsonl").usable == 1


def test_a_symbolic_link_out_of_the_permitted_folder_is_refused(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside.jsonl"
    inside.mkdir()
    outside.write_text(GOOD)
    (inside / "link.jsonl").symlink_to(outside)

    def permit(path: Path) -> None:
        if not path.is_relative_to(inside):
            raise PathForbiddenError(f"{path} is outside.")

    for source in (inside / "link.jsonl", inside, inside / "*.jsonl"):
        assert code_of(lambda source=source: open_source(source, permit=permit)) == "INPUT_PATH_FORBIDDEN"


def test_a_symbolic_link_to_itself_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "loop.jsonl").symlink_to(tmp_path / "loop.jsonl")
    assert code_of(lambda: checked(tmp_path / "loop.jsonl")) == NOT_FOUND


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_named_pipe_and_a_device_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "zero.jsonl").symlink_to("/dev/zero")
    assert code_of(lambda: checked(tmp_path / "pipe.jsonl")) == FORMAT
    assert code_of(lambda: checked(tmp_path / "zero.jsonl")) == FORMAT


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="no POSIX permissions")
def test_a_file_that_may_not_be_read_is_told_as_forbidden() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "secret.jsonl"
        path.write_text(GOOD)
        path.chmod(0)
        Path(folder).chmod(0o755)
        root = os.geteuid() == 0
        try:
            if root:
                os.seteuid(65534)
            assert code_of(lambda: checked(path)) == "INPUT_PATH_FORBIDDEN"
        finally:
            if root:
                os.seteuid(0)


def test_parquet_drops_the_nulls_that_structs_share(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    rows = [
        {"messages": [{"role": "user", "content": "Hi", "tool_calls": None}, {"role": "assistant", "content": "a", "tool_calls": None}]},
        {"messages": [{"role": "user", "content": "Hi", "tool_calls": None}, {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1, "b": None}}}]}]},
        {"messages": [{"role": "user", "content": "Hi", "tool_calls": None}, {"role": "assistant", "content": "a", "tool_calls": [{"function": {"name": "g", "arguments": {"a": None, "b": 2}}}]}]},
    ]  # fmt: skip
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")  # pyright: ignore[reportUnknownMemberType]
    values = [row.value for row in open_source(tmp_path / "a.parquet") if hasattr(row, "value")]  # pyright: ignore[reportAttributeAccessIssue]
    assert "tool_calls" not in values[0]["messages"][1] and "content" not in values[1]["messages"][1]
    assert values[2]["messages"][1]["tool_calls"][0]["function"]["arguments"] == {"b": 2}
    assert checked(tmp_path / "a.parquet").usable == 3


def test_a_parquet_row_that_is_all_null_is_refused_with_its_number(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.Table.from_pylist([{"text": "a"}, {"text": None}])
    parquet.write_table(table, tmp_path / "a.parquet")  # pyright: ignore[reportUnknownMemberType]
    with pytest.raises(DatasetError, match=r"a\.parquet row 2"):
        checked(tmp_path / "a.parquet")


def test_a_parquet_text_that_a_dictionary_repeats_without_end_is_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    for name, rows in (("few.parquet", 100), ("bomb.parquet", 100_000)):
        repeated = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["y" * 2**20]))  # pyright: ignore
        parquet.write_table(pa.table({"text": repeated}), tmp_path / name, compression="zstd")  # pyright: ignore
    assert checked(tmp_path / "few.parquet").usable == 100
    with pytest.raises(DatasetError, match=r"bomb\.parquet expands to more than 268,435,456 bytes"):
        checked(tmp_path / "bomb.parquet")


def test_a_damaged_parquet_file_is_told_as_such(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"text": [f"row {n}" for n in range(5000)]}), tmp_path / "a.parquet")  # pyright: ignore[reportUnknownMemberType]
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    data[100:4000] = b"\xff" * 3900
    (tmp_path / "a.parquet").write_bytes(data)
    assert code_of(lambda: checked(tmp_path / "a.parquet")) == PARSE


@pytest.mark.parametrize("separator, count", [(None, 1), ("---", 2), ("", 3)])
def test_a_text_file_is_one_document_or_split_by_a_separator(
    tmp_path: Path, separator: str | None, count: int
) -> None:
    (tmp_path / "a.txt").write_text("One\n\nTwo\n---\nThree\n\n\nFour\n")
    assert checked(tmp_path / "a.txt", separator=separator).usable == count


def test_several_files_and_patterns_are_one_source_with_their_own_names(tmp_path: Path) -> None:
    for name in ("b/x.jsonl", "a/x.jsonl", "a/y.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(GOOD if name.endswith("l") else "prompt,completion\na,b\n")
    source = open_source([tmp_path / "b/x.jsonl", str(tmp_path / "a/*")])
    assert [part.name for part in source.parts] == ["b/x.jsonl", "a/x.jsonl", "a/y.csv"]
    assert len(list(source)) == 3


def test_a_folder_gives_its_tables_and_leaves_other_splits_and_read_me_aside(tmp_path: Path) -> None:
    for name in ("train-00000-of-00001.jsonl", "test.jsonl", "README.md", ".hidden.jsonl"):
        (tmp_path / name).write_text(GOOD)
    source = open_source(tmp_path)
    assert [part.name for part in source.parts] == ["train-00000-of-00001.jsonl"]
    assert source.notes == ("Not used (other splits): test.jsonl.",)


def test_the_content_hash_is_of_the_content_and_not_of_the_path(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text(GOOD)
    one, other = (open_source(tmp_path / name).content_hash() for name in ("a.jsonl", "b.jsonl"))
    (tmp_path / "b.jsonl").write_text(GOOD + "\n")
    assert one == other != open_source(tmp_path / "b.jsonl").content_hash()


def test_a_missing_library_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl.zst").write_bytes(zstd(lines(GOOD)))
    (tmp_path / "a.parquet").write_bytes(b"")
    for module, name in (("zstandard", "a.jsonl.zst"), ("pyarrow.parquet", "a.parquet")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MissingExtraError, match=f"needs the package {module.split('.')[0]}"):
            checked(tmp_path / name)


LIGHT = """
import sys
from backpropagate.training.config.specs import DataGroup
from backpropagate.training.data.check import check
result = check(DataGroup(source=sys.argv[1:]))
assert result.usable == 4, result.as_dict()
names = {"torch", "transformers", "datasets", "pandas", "numpy", "pyarrow", "tokenizers", "jinja2", "rensa"}
heavy = names & set(sys.modules)
assert not heavy, heavy
"""


def test_checking_plain_files_imports_nothing_heavy(tmp_path: Path) -> None:
    files = {"a.jsonl": GOOD, "a.json": f"[{GOOD}]", "a.csv": "prompt,completion\na,b\n", "a.txt": "x"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    subprocess.run([sys.executable, "-c", LIGHT, *(str(tmp_path / name) for name in files)], check=True)


MEMORY = """
import resource, sys
from backpropagate.training.config.specs import DataGroup
from backpropagate.training.data.check import check
from backpropagate.training.errors import DatasetError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name in sys.argv[1:]:
    try:
        check(DataGroup(source=name))
    except DatasetError:
        pass
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss in KiB")
@pytest.mark.slow
def test_memory_does_not_grow_with_the_file_nor_with_a_bomb(tmp_path: Path) -> None:
    def peak(*names: str) -> int:
        command = [sys.executable, "-c", MEMORY, *(str(tmp_path / name) for name in names)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    (tmp_path / "large.jsonl").write_text((json.dumps({"text": "word " * 200}) + "\n") * 50_000)
    (tmp_path / "large.json").write_text(
        "[" + ",\n".join([json.dumps({"text": "word " * 200})] * 50_000) + "]"
    )
    (tmp_path / "bomb.jsonl.gz").write_bytes(gzip.compress(b"\0" * 2**24, 9) * 40)
    assert peak("large.jsonl", "large.json") < 20, "MiB, for two files of 50 MB"
    assert peak("bomb.jsonl.gz") < 200, "MiB: a row may be 64 MiB long, and is held as bytes once or twice"


@pytest.mark.skipif(sys.platform == "win32", reason="datasets keeps files open")
def test_a_local_copy_of_a_hub_dataset_is_read_by_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "data").mkdir()
    for split, count in (("train", 3), ("test", 2)):
        rows = [json.dumps({"question": f"{split} {n}?", "answer": "Yes."}) for n in range(count)]
        (tmp_path / "data" / f"{split}-00000-of-00001.jsonl").write_text("\n".join(rows))
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# A dataset\n")
    for split, count in (("train", 3), ("test", 2)):
        result = checked(tmp_path, split=split)
        assert (result.usable, result.formats["question_answer"]) == (count, count)
    with pytest.raises(DatasetError, match="'validation'"):
        checked(tmp_path, split="validation")


def test_a_hub_name_that_cannot_be_reached_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert code_of(lambda: checked("owner/name")) == NOT_FOUND
