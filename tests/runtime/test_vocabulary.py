"""Our reading of tokenizer.json against the tokenizers package, and its refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milan_onnx.errors import BundleError
from milan_onnx.runtime.vocabulary import read_vocabulary

WORDS = ["a", "dog", ".", ",", "'s", "n't", "##s", "do", "not", "'", "?", "sky-blue", "it's"]
SPECIALS = ["<start>", "<stop>", "<pad>", "<unk>"]
SIZE = len(WORDS) + len(SPECIALS)


def write(path: Path, decoder: str | None) -> Path:
    from tokenizers import AddedToken, Tokenizer, decoders, models

    ids = {word: index for index, word in enumerate([*WORDS, *SPECIALS])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.add_special_tokens([AddedToken(s, special=True) for s in SPECIALS])
    if decoder:
        tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=decoder == "clean")
    tokenizer.save(str(path))
    return path


@pytest.mark.parametrize("decoder", [None, "plain", "clean"])
def test_same_text_as_tokenizers(tmp_path: Path, decoder: str | None) -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="parity wants the export extra")
    path = write(tmp_path / "tokenizer.json", decoder)
    theirs, ours = tokenizers.Tokenizer.from_file(str(path)), read_vocabulary(path, SIZE)

    @given(st.lists(st.integers(0, SIZE - 1), max_size=15))
    def check(tokens: list[int]) -> None:
        assert ours.text(tokens) == theirs.decode(tokens, skip_special_tokens=True).strip()

    check()


def test_padding_after_the_end_is_no_word(tmp_path: Path) -> None:
    ours = read_vocabulary(write(tmp_path / "tokenizer.json", "clean"), SIZE)
    assert ours.text([0, 1, 4, len(WORDS) + 1, -1, -1]) == "a dog's"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v["model"].update(type="BPE"), "BPE tokenizer"),
        (lambda v: v["model"]["vocab"].pop("dog"), "does not name the 17 tokens"),
        (lambda v: v.pop("model"), "is not a tokenizer"),
        (lambda v: v.update(decoder={"type": "Fuse"}), "Fuse, not WordPiece"),
        (lambda v: v.update(added_tokens=3), "is not a tokenizer"),
    ],
)
def test_other_tokenizers_are_refused(tmp_path: Path, change: object, words: str) -> None:
    path = write(tmp_path / "tokenizer.json", "clean")
    value = json.loads(path.read_text())
    change(value)  # type: ignore[operator]
    path.write_text(json.dumps(value))
    with pytest.raises(BundleError, match=words):
        read_vocabulary(path, SIZE)
