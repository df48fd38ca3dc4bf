"""Rows on stdout: aligned for a person at a terminal, tab-separated for a program."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from types import TracebackType

from milan_onnx.labels import UnitLabel, percent_text
from milan_onnx.progress import Console, Quiet, printable

ROOMY = 60
"""Columns of a terminal from which on validity has one of its own."""
FAINT, PLAIN = "\x1b[2m", "\x1b[0m"


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows with a header; empty cells for None."""
    cells = [["" if cell is None else printable(str(cell)) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for line in (header, *cells):
            print("\t".join(line))
        return
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    for line in (header, *cells):
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(padded).rstrip())


class LabelTable:
    """Prints labels as they come; a context, at whose end all are printed.

    The third column is ``confidence`` where labels have one, else ``pmi``. The first description
    says which, so units before it that have none wait for it.
    """

    def __init__(self, console: Console | Quiet) -> None:
        self._console = console
        self._terminal = sys.stdout.isatty()
        self._waiting: list[UnitLabel] = []
        self._confident: bool | None = None
        self._unwritable = False

    def __enter__(self) -> LabelTable:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._waiting:
            self._print_all(self._confident is True)

    def __call__(self, label: UnitLabel) -> None:
        """Print one label; where stdout is full or its reader gone the work goes on without."""
        self._waiting.append(label)
        if self._confident is not None or label.description is not None:
            self._print_all(label.confidence is not None)

    def _print_all(self, confident: bool) -> None:
        """Print those that wait, under a header where they are the first."""
        try:
            if not self._unwritable:
                if self._confident is None:
                    self._confident = confident
                    score = "confidence" if confident else "pmi"
                    self._print("layer", "unit", score, "validity", "description", "flags")
                for label in self._waiting:
                    self._row(label)
        except OSError as error:
            self._unwritable = True
            if not isinstance(error, BrokenPipeError):
                self._console.note(f"warning: the table ends here: {error.strerror}")
        self._waiting = []

    def _row(self, label: UnitLabel) -> None:
        text = printable(label.description or "-")
        validity = _cell(label.validity.correlation if label.validity else None)
        flags = " ".join(label.flags)
        cells = (printable(label.layer), str(label.unit), self._score(label), validity, text, flags)
        self._print(*cells, faint="abstained" in label.flags)

    def _score(self, label: UnitLabel) -> str:
        if not self._confident:
            return _cell(label.pmi)
        return "" if label.confidence is None else percent_text(label.confidence)

    def _print(
        self,
        layer: str,
        unit: str,
        score: str,
        validity: str,
        text: str,
        flags: str,
        *,
        faint: bool = False,
    ) -> None:
        if not self._terminal:
            print("\t".join((layer, unit, score, validity, text, flags)))
            return
        self._console.clear()
        columns = shutil.get_terminal_size().columns
        width = max(1, min(24, columns // 4))
        roomy = columns >= ROOMY
        room = len("confidence") if self._confident and roomy else 7
        figures = f"{score[:room]:>{room}}"
        if roomy:  # narrower, the words would go before the figures do
            figures += f" {validity:>8}"
        line = f"{layer[-width:]:<{width}} {unit:>5} {figures}  {text}"
        if flags:
            line += f"  [{flags}]"
        line = line[:columns]
        print(f"{FAINT}{line}{PLAIN}" if faint else line, flush=True)


def _cell(score: float | None) -> str:
    return "" if score is None else f"{score:.2f}"
