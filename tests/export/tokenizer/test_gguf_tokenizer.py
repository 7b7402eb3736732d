"""What a GGUF file says about the tokenizer of a folder."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from published_tokenizers import ESCAPE, NO_SPACE_LEFT, PREPEND, merges_by_score, write_folder

from backpropagate.training.errors import GgufExportError
from backpropagate.training.export.gguf.reader import read_metadata
from backpropagate.training.export.tokenizer.gguf_tokenizer import gguf_tokenizer
from backpropagate.training.export.verify.tokenizer_parity import compare_tokenizers

ADDED = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
SmallTokenizer = Callable[..., Path]
PIECES = ["▁", "a", "b", "ab", "▁a", "▁ab", "▁▁", "▁▁▁"]
SCORES = [-7.0, -6.0, -5.0, 0.0, -1.0, -2.0, -1e9, -1e9]


def change(folder: Path, name: str, **values: Any) -> None:
    path = folder / name
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(content | values), encoding="utf-8")


@pytest.fixture
def small_sentencepiece(tmp_path: Path) -> Callable[..., Path]:
    """A tokenizer as made of a SentencePiece model: bytes as a last resort, all ways to make a piece."""

    def write(**settings: Any) -> Path:
        tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *PIECES]
        vocab = {token: id for id, token in enumerate(tokens)}
        usual = {
            "vocab": vocab,
            "merges": merges_by_score(dict(zip(PIECES, SCORES, strict=True)), vocab),
            "added": {id: (token, True) for id, token in enumerate(tokens[:3])},
            "special": {"bos": "<s>", "eos": "</s>", "unk": "<unk>"},
            "byte_fallback": True,
            "bos": "<s>",
            "normalizers": [PREPEND, ESCAPE],
        }
        return write_folder(tmp_path / "sentencepiece", **(usual | settings))

    return write


def test_the_real_smollm2_gets_llama_cpps_names_and_ids(smollm2: Path) -> None:
    tokenizer = gguf_tokenizer(smollm2, 49152)
    assert (tokenizer.model, tokenizer.pre) == ("gpt2", "smollm")
    assert len(tokenizer.tokens) == 49152 and tokenizer.scores is None
    assert tokenizer.merges and tokenizer.merges[0] == "Ġ t"
    assert tokenizer.special_ids == {"bos": 1, "eos": 2, "unk": 0, "pad": 2}
    assert not tokenizer.add_bos and not tokenizer.add_eos and not tokenizer.add_space_prefix
    assert tokenizer.stop_tokens == ("<|im_end|>",)
    assert tokenizer.chat_template == (smollm2 / "chat_template.jinja").read_text(encoding="utf-8")


def test_what_is_written_is_what_can_be_read_back(
    small_tokenizer: SmallTokenizer, export: Callable[..., Any]
) -> None:
    tokenizer, path = export(small_tokenizer(bos="<|im_start|>"), 300)
    metadata = {
        key.removeprefix("tokenizer.ggml."): value
        for key, value in read_metadata(path).items()
        if key.startswith("tokenizer.ggml.")
    }
    first = tokenizer.tokens.index("<|endoftext|>")
    assert metadata == {
        "model": "gpt2",
        "pre": "llama-bpe",
        "tokens": tokenizer.tokens,
        "token_type": tokenizer.token_types,
        "merges": tokenizer.merges,
        "bos_token_id": first + 1,
        "eos_token_id": first + 2,
        "padding_token_id": first,
        "add_bos_token": True,
        "add_eos_token": False,
        "add_space_prefix": False,
    }


def test_a_template_stands_under_llama_cpps_key_and_its_absence_is_said(
    small_tokenizer: SmallTokenizer, export: Callable[..., Any]
) -> None:
    folder = small_tokenizer()
    assert gguf_tokenizer(folder, 300).chat_template is None
    templates = [{"name": "default", "template": "{{ a }}"}, {"name": "tool_use", "template": "{{ b }}"}]
    change(folder, "tokenizer_config.json", chat_template=templates)
    tokenizer, path = export(folder, 300)
    assert tokenizer.chat_template == "{{ a }}"
    metadata = read_metadata(path)
    assert metadata["tokenizer.chat_template"] == "{{ a }}"
    assert metadata["tokenizer.chat_template.tool_use"] == "{{ b }}"
    (folder / "chat_template.jinja").write_text("{{ of its own }}", encoding="utf-8")
    assert gguf_tokenizer(folder, 300).chat_template == "{{ of its own }}"


def test_added_tokens_are_control_tokens_or_found_in_any_text(
    small_tokenizer: SmallTokenizer, small_vocab: dict[str, int]
) -> None:
    first = len(small_vocab)
    names = [("<|im_end|>", True), ("<tool▁call>", False), ("<|looks_special|>", False), ("<unused7>", False)]
    names += [("<|tool_call>", True)]  # which llama.cpp's chats read
    added = {first + place: token for place, token in enumerate(names)}
    tokenizer = gguf_tokenizer(small_tokenizer(added=added, special={"eos": "<|im_end|>"}), first + 7)
    assert list(tokenizer.tokens[first:]) == [
        *("<|im_end|>", "<tool call>", "<|looks_special|>", "<unused7>", "<|tool_call>"),
        *(f"[PAD{first + 5}]", f"[PAD{first + 6}]"),
    ]
    types = [CONTROL, USER_DEFINED, CONTROL, CONTROL, USER_DEFINED, UNUSED, UNUSED]
    assert list(tokenizer.token_types[first:]) == types


def test_tokens_that_the_models_generation_never_chooses_are_named(
    small_tokenizer: SmallTokenizer, export: Callable[..., Any]
) -> None:
    folder = small_tokenizer()
    change(folder, "generation_config.json", suppress_tokens=[7, 3, 300])
    assert read_metadata(export(folder, 300)[1])["tokenizer.ggml.suppress_tokens"] == [7, 3]


def test_a_gap_in_the_vocabulary_is_padding(
    small_tokenizer: SmallTokenizer, small_vocab: dict[str, int]
) -> None:
    vocab = small_vocab | {"Ġhe": len(small_vocab) + 5}
    tokenizer = gguf_tokenizer(small_tokenizer(vocab=vocab, added={}, special={}), 300)
    gap = len(small_vocab)
    assert tokenizer.tokens[gap] == f"[PAD{gap}]" and tokenizer.token_types[gap] == UNUSED
    assert tokenizer.tokens[gap + 5] == "Ġhe" and tokenizer.token_types[gap + 5] == NORMAL


def test_an_added_token_beyond_the_embedding_that_has_no_role_is_left_out(
    small_tokenizer: Callable[..., Path], small_vocab: dict[str, int], export: Callable[..., Any]
) -> None:
    """Gemma 3's text models come with a token for images that their embedding has no row for."""
    rows = len(small_vocab) + 3
    added = {len(small_vocab) + i: (t, True) for i, t in enumerate([*ADDED, "<image_soft_token>"])}
    folder = small_tokenizer(added=added)
    tokenizer, path = export(folder, rows)
    assert len(tokenizer.tokens) == rows and "<image_soft_token>" not in tokenizer.tokens
    assert compare_tokenizers(folder, path).agrees


def test_more_tokens_than_rows_are_refused(
    small_tokenizer: SmallTokenizer, small_vocab: dict[str, int]
) -> None:
    rows = len(small_vocab) + 2
    with pytest.raises(
        GgufExportError, match=f"'<.im_end.>' with the id {rows}, but .* {rows} rows"
    ) as error:
        gguf_tokenizer(small_tokenizer(), rows)
    assert error.value.hint and "Resize" in error.value.hint


def test_two_tokens_with_one_id_are_refused(
    small_tokenizer: SmallTokenizer, small_vocab: dict[str, int]
) -> None:
    with pytest.raises(GgufExportError, match="'hello' and 'twin' both have the id"):
        gguf_tokenizer(small_tokenizer(vocab=small_vocab | {"twin": small_vocab["hello"]}), 300)


def test_two_ids_with_one_text_are_refused(
    small_tokenizer: SmallTokenizer, small_vocab: dict[str, int]
) -> None:
    vocab = small_vocab | {"[PAD299]": len(small_vocab)}
    with pytest.raises(GgufExportError, match="both have the text '\\[PAD299\\]'"):
        gguf_tokenizer(small_tokenizer(vocab=vocab, added={}, special={}), 300)


def test_merges_may_be_texts_or_pairs_and_pairs_may_hold_spaces(
    small_tokenizer: SmallTokenizer, small_vocab: dict[str, int]
) -> None:
    as_texts = gguf_tokenizer(small_tokenizer(merges=["h e", "l l"]), 300)
    as_pairs = gguf_tokenizer(small_tokenizer("pairs", merges=[["h", "e"], ["l", "l"]]), 300)
    assert as_texts.merges == as_pairs.merges == ["h e", "l l"]
    spaced = small_vocab | {"a b": len(small_vocab), "a ": len(small_vocab) + 1}
    folder = small_tokenizer("spaced", vocab=spaced, merges=[["a ", "b"]], added={}, special={})
    assert gguf_tokenizer(folder, 300).merges == ["aĠ b"]


def test_what_a_tokenizer_adds_is_seen_by_running_it(small_tokenizer: SmallTokenizer) -> None:
    folder = small_tokenizer(bos="<|im_start|>")
    change(folder, "tokenizer_config.json", add_bos_token=False)
    assert gguf_tokenizer(folder, 300).add_bos


def test_tokens_around_a_text_that_gguf_cannot_name_are_refused(small_tokenizer: SmallTokenizer) -> None:
    folder = small_tokenizer(bos="<|endoftext|>")
    with pytest.raises(GgufExportError, match="can name only one bos token"):
        gguf_tokenizer(folder, 300)


def test_stop_tokens_come_from_every_file_that_names_one(
    small_tokenizer: SmallTokenizer, small_vocab: dict[str, int]
) -> None:
    first = len(small_vocab)
    added = {first: ("<|endoftext|>", True), first + 1: ("<|eom_id|>", True), first + 2: ("<|im_end|>", True)}
    folder = small_tokenizer(added=added, special={"eos": "<|endoftext|>"})
    assert gguf_tokenizer(folder, 300).stop_tokens == ("<|endoftext|>",)
    change(folder, "generation_config.json", eos_token_id=[first, first + 1])
    change(folder, "tokenizer_config.json", chat_template="{{ m }}<|im_end|>")
    assert gguf_tokenizer(folder, 300).stop_tokens == ("<|endoftext|>", "<|eom_id|>", "<|im_end|>")


def test_an_adapters_folder_takes_what_it_lacks_from_its_base(
    small_tokenizer: SmallTokenizer, tmp_path: Path, small_vocab: dict[str, int]
) -> None:
    base = small_tokenizer("base", special={})
    change(base, "config.json", eos_token_id=len(small_vocab) + 2)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    assert gguf_tokenizer(adapter, 300, base).stop_tokens == ("<|im_end|>",)
    with pytest.raises(GgufExportError, match=r"no tokenizer\.json") as error:
        gguf_tokenizer(adapter, 300)
    assert error.value.hint and "AutoTokenizer" in error.value.hint


def test_scores_follow_from_merges(small_sentencepiece: Callable[..., Path]) -> None:
    tokenizer = gguf_tokenizer(small_sentencepiece(), 270)
    assert (tokenizer.model, tokenizer.pre, tokenizer.merges) == ("llama", "default", None)
    assert tokenizer.scores
    scores = dict(zip(tokenizer.tokens, tokenizer.scores, strict=True))
    assert scores["ab"] > scores["▁a"] > scores["▁ab"] > scores["▁▁▁"] > scores["▁▁"]
    types = dict(zip(tokenizer.tokens, tokenizer.token_types, strict=True))
    assert types["<0x0A>"] == BYTE and types["</s>"] == CONTROL and types["ab"] == NORMAL
    assert tokenizer.add_space_prefix and tokenizer.add_bos


def test_scores_of_a_sentencepiece_model_beside_it_are_taken_over(
    small_sentencepiece: Callable[..., Path],
) -> None:
    folder = small_sentencepiece()
    vocab: dict[str, int] = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"][
        "vocab"
    ]
    known = dict(zip(PIECES, SCORES, strict=True))
    model = b"".join(_piece(token, known.get(token, 0.0)) for token in vocab)
    (folder / "tokenizer.model").write_bytes(model + b"\x12\x02\x08\x01")
    scores = gguf_tokenizer(folder, 270).scores
    assert scores and [scores[vocab[token]] for token in PIECES] == SCORES
    (folder / "tokenizer.model").write_bytes(b"\x0a\xff\x01cut")
    with pytest.raises(GgufExportError, match="not a SentencePiece model"):
        gguf_tokenizer(folder, 270)


def _piece(text: str, score: float) -> bytes:
    """A piece as protocol buffers write it: text, score, type (normal)."""
    import struct

    content = text.encode()
    inner = bytes([0x0A, len(content)]) + content + b"\x15" + struct.pack("<f", score) + b"\x18\x01"
    return bytes([0x0A, len(inner)]) + inner


def test_merges_that_no_scores_can_express_are_refused(small_sentencepiece: Callable[..., Path]) -> None:
    apart = [["a", "b"], ["▁", "a"], ["▁", "ab"], ["▁", "▁"], ["▁a", "b"], ["▁▁", "▁"], ["▁", "▁▁"]]
    with pytest.raises(GgufExportError, match="'▁ab' are not adjacent"):
        gguf_tokenizer(small_sentencepiece(merges=[*apart[:4], *apart[4:]]), 270)
    with pytest.raises(GgufExportError, match="'▁a' and 'b' are not merged"):
        gguf_tokenizer(small_sentencepiece(merges=[pair for pair in apart if pair != ["▁a", "b"]]), 270)


@pytest.mark.parametrize(
    ("normalizers", "pre_tokenizers", "prefix"),
    [
        ([PREPEND, ESCAPE], [], True),
        ([], [{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}], True),
        ([], [{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": False}], False),
        ([ESCAPE], [NO_SPACE_LEFT], False),
    ],
)
def test_whether_a_space_is_put_before_a_text_follows_from_the_rules(
    small_sentencepiece: Callable[..., Path], normalizers: Any, pre_tokenizers: Any, prefix: bool
) -> None:
    folder = small_sentencepiece(normalizers=normalizers, pre_tokenizers=pre_tokenizers)
    assert gguf_tokenizer(folder, 270).add_space_prefix is prefix


def test_other_ways_to_treat_spaces_are_refused(small_sentencepiece: Callable[..., Path]) -> None:
    splitting = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True}
    with pytest.raises(GgufExportError, match="rules for spaces") as refused:
        gguf_tokenizer(small_sentencepiece(normalizers=[], pre_tokenizers=[splitting]), 270)
    assert '"split": true' in str(refused.value.untrusted)


def test_a_name_is_asked_for_where_llama_cpp_knows_a_rule_by_name_only(
    small_sentencepiece: Callable[..., Path],
) -> None:
    assert gguf_tokenizer(small_sentencepiece(), 270).name_part is None
    special = ["<unk>", "<s>", "</s>", "<|endoftext|>", "<|user|>"]
    added = {id: (token, True) for id, token in zip([0, 1, 2, 267, 268], special, strict=True)}
    folder = small_sentencepiece(added=added, rstrip=["</s>", "<|user|>"])
    assert gguf_tokenizer(folder, 270).name_part == "phi-3"


@pytest.mark.parametrize("content", ["{", "[]", '{"a": ' + "[" * 100_000])
def test_a_broken_file_is_named(small_tokenizer: SmallTokenizer, content: str) -> None:
    folder = small_tokenizer()
    (folder / "tokenizer_config.json").write_text(content, encoding="utf-8")
    with pytest.raises(GgufExportError, match=r"tokenizer_config\.json"):
        gguf_tokenizer(folder, 300)


def test_importing_it_needs_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, backpropagate.training.export.tokenizer.gguf_tokenizer, "
        "backpropagate.training.export.verify.tokenizer_parity; "
        "print({'torch', 'transformers', 'numpy', 'gguf', 'tokenizers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
