"""Markdown for the summaries of CI jobs. Names in models may hold anything: text is made safe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from milan_onnx.progress import printable

SPECIAL = frozenset("\\`*_{}[]<>|#~&!")
"""What Markdown, or HTML in it, would act on."""


def safe(text: str) -> str:
    """A text that shows as it is, on one line."""
    return "".join(f"\\{char}" if char in SPECIAL else char for char in printable(text))


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a table; the cells are safe already, numbers and texts of the program."""
    lines: list[Sequence[object]] = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(map(str, cells))} |" for cells in lines]
