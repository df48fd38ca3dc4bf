"""The words of a bundle: token ids to text, from a Hugging Face ``tokenizer.json``.

Bundles hold word-level vocabularies, and a run only ever turns ids into words, so the few rules of
that format which matter are here. The package ``tokenizers`` would do it too, but it brings a hub
client and a network stack of 54 MB to a program that must work offline; tests hold this against it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milan_onnx.errors import BundleError

# What the WordPiece decoder's clean-up replaces, in its order.
CLEANUP = (
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" do not", " don't"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
)


@dataclass(frozen=True)
class Vocabulary:
    """Words by token id."""

    words: Mapping[int, str]
    """Every token that stands for text; special tokens are left out."""

    prefix: str | None
    """What marks a continued word, for a WordPiece decoder; None: words are joined by spaces."""

    cleanup: bool
    """Whether spaces before punctuation are taken away."""

    sentences: bool = False
    """Whether text is put together as the paper's code does (see `sentences`)."""

    def text(self, tokens: Iterable[int]) -> str:
        """The words of token ids; special and unknown ids are skipped."""
        words = [self.words[token] for token in tokens if token in self.words]
        if self.sentences:
            return sentences(words)
        return "".join(self._piece(word, first=i == 0) for i, word in enumerate(words)).strip()

    def _piece(self, word: str, *, first: bool) -> str:
        if not first:
            joined = self.prefix is not None and word.startswith(self.prefix)
            word = word.removeprefix(self.prefix or "") if joined else f" {word}"
        if self.cleanup:
            for dirty, clean in CLEANUP:
                word = word.replace(dirty, clean)
        return word


def sentences(words: Iterable[str]) -> str:
    """Words as the paper's code writes them: each sentence with a capital, no space before
    punctuation or around hyphens."""
    text = " ".join(words)
    for mark in ".,;:":
        text = text.replace(f" {mark}", mark)
    parts = [part.strip().capitalize() for part in text.replace(" - ", "-").split(".")]
    return ". ".join(parts).strip()


def read_vocabulary(path: Path, size: int, style: str = "words") -> Vocabulary:
    """Read a ``tokenizer.json`` of a word-level vocabulary of ``size`` tokens.

    ``style``: see `milan_onnx.bundle.VocabularySpec`.

    Raises BundleError when it is damaged, of another kind, or does not name every token.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        model = value["model"]
        if model["type"] != "WordLevel":
            raise BundleError(f"{path} is a {model['type']} tokenizer, not a WordLevel one")
        special = {int(t["id"]) for t in value["added_tokens"] if t["special"]}
        words = {int(index): str(word) for word, index in model["vocab"].items()}
        words |= {int(t["id"]): str(t["content"]) for t in value["added_tokens"]}
        prefix, cleanup = _decoder(value.get("decoder"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise BundleError(f"{path} is not a tokenizer ({reason})") from error
    if sorted(words) != list(range(size)):
        raise BundleError(f"{path} does not name the {size} tokens that the manifest says")
    kept = {index: word for index, word in words.items() if index not in special}
    return Vocabulary(kept, prefix, cleanup, style == "sentences")


def _decoder(value: Any) -> tuple[str | None, bool]:
    if value is None:
        return None, False
    if value["type"] != "WordPiece":
        raise ValueError(f"its decoder is {value['type']}, not WordPiece")
    return str(value["prefix"]), bool(value["cleanup"])
