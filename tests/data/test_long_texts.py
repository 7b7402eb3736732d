"""A long text has the tokens of the whole, made in pieces, and its memory does not grow with its length."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from backpropagate.training.config.specs import DataGroup
from backpropagate.training.data.report import inspector
from backpropagate.training.data.report.inspection import inspect
from backpropagate.training.data.tokens import long_texts
from backpropagate.training.data.tokens.encode import Encoder, Rendered
from backpropagate.training.data.tokens.long_texts import tokenise_long
from backpropagate.training.data.tokens.token_offsets import ModelTokenizer, Tokenised
from backpropagate.training.data.tokens.tokenizer_files import TokenizerFiles

SOURCE = Path(__file__).read_text(encoding="utf-8") * 2
PARTS = st.one_of(
    st.integers(0, len(SOURCE) - 80).map(lambda at: SOURCE[at : at + 80]),
    st.integers(1, 90).map(lambda count: " " * count),
    st.sampled_from(["0", "a", "=", "\n", "é", "日本語", "🙂"]).flatmap(
        lambda text: st.integers(1, 40).map(lambda count: text * count)
    ),
    st.text(max_size=20),
)


def byte_level(pre: Any) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        [SOURCE], trainers.BpeTrainer(vocab_size=800, initial_alphabet=alphabet, show_progress=False)
    )
    return tokenizer


def whole_sentences() -> Tokenizer:
    """As Llama 2 has it: words are not split before merging, and a text begins with a space."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.train_from_iterator(
        SOURCE.splitlines(),
        trainers.BpeTrainer(vocab_size=800, special_tokens=["<unk>"], show_progress=False),
    )
    return tokenizer


TOKENIZERS = {
    "words": byte_level(pre_tokenizers.ByteLevel(False)),
    "digits": byte_level(
        pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)])
    ),
    "sentences": whole_sentences(),
}


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(max_examples=40)
@given(parts=st.lists(PARTS, min_size=20, max_size=200), data=st.data())
def test_a_text_in_pieces_has_the_tokens_of_the_whole(kind: str, parts: list[str], data: Any) -> None:
    tokenizer, text = ModelTokenizer(TOKENIZERS[kind]), "".join(parts)
    asked = [*data.draw(st.lists(st.integers(0, len(text)), max_size=6)), len(text)]

    def tokenise(text: str, char_offsets: Sequence[int]) -> Tokenised:
        return tokenizer.tokenise([text], [char_offsets])[0]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(long_texts, "PIECE", 1500)
        patched.setattr(long_texts, "OVERLAP", 1000)
        found = tokenise_long(tokenise, text, asked)
    whole = tokenise(text, asked)
    if found is not None:
        assert found.ids.tolist() == whole.ids.tolist() and found.token_offsets == whole.token_offsets


def test_ordinary_text_is_cut_into_pieces() -> None:
    tokenizer = ModelTokenizer(TOKENIZERS["words"])
    text = SOURCE * 300

    def tokenise(text: str, char_offsets: Sequence[int]) -> Tokenised:
        assert len(text) <= long_texts.PIECE
        return tokenizer.tokenise([text], [char_offsets])[0]

    assert len(text) > 2 * long_texts.PIECE
    assert tokenise_long(tokenise, text, [0, len(text)]) is not None


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read as Linux tells it")
@pytest.mark.slow
def test_the_memory_of_an_inspection_does_not_grow_with_the_length_of_rows(
    tmp_path: Path, tiny_model: Path
) -> None:
    text = "".join(f"word{number % 997} " for number in range(400_000))
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": text}) + "\n")
    program = (
        "import sys; from pathlib import Path\n"
        "from backpropagate.training.config.specs import DataGroup\n"
        "from backpropagate.training.data.report.inspection import inspect\n"
        "from backpropagate.training.data.tokens.tokenizer_files import TokenizerFiles\n"
        "found = inspect(DataGroup(source=sys.argv[1]), TokenizerFiles(Path(sys.argv[2])), preview=6)\n"
        "print(found.rows, Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "a.jsonl"), str(tiny_model)]
    rows, kilobytes = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert rows == "1" and int(kilobytes) < 600 * 2**10


def test_long_rows_are_tokenised_in_small_batches(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    tokenise = Encoder.tokenise

    def noted(self: Encoder, rows: Sequence[Rendered]) -> Any:
        sizes.append(sum(len(row.text) for row in rows))
        return tokenise(self, rows)

    monkeypatch.setattr(Encoder, "tokenise", noted)
    monkeypatch.setattr(inspector, "CHARACTERS_AT_ONCE", 2000)
    (tmp_path / "a.jsonl").write_text((json.dumps({"text": SOURCE[:900]}) + "\n") * 20)
    inspect(DataGroup(source=str(tmp_path / "a.jsonl")), TokenizerFiles(tiny_model))
    assert sum(sizes) == 20 * 900 and max(sizes) < 3000
