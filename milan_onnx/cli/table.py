"""Rows on stdout: aligned for a person at a terminal, tab-separated for a program."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence

from milan_onnx.labels import UnitLabel
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
    """Prints labels as they come."""

    def __init__(self, console: Console | Quiet) -> None:
        self._console = console
        self._terminal = sys.stdout.isatty()
        self._begun = False
        self._unwritable = False

    def __call__(self, label: UnitLabel) -> None:
        """Print one label; where stdout is full or its reader gone the work goes on without."""
        try:
            if not self._unwritable:
                self._row(label)
        except OSError as error:
            self._unwritable = True
            if not isinstance(error, BrokenPipeError):
                self._console.note(f"warning: the table ends here: {error.strerror}")

    def _row(self, label: UnitLabel) -> None:
        if self._terminal:
            self._console.clear()
        if not self._begun:
            self._begun = True
            self._print("layer", "unit", "pmi", "validity", "description", "flags")
        text = printable(label.description or "-")
        validity = _cell(label.validity.correlation if label.validity else None)
        flags = " ".join(label.flags)
        cells = (printable(label.layer), str(label.unit), _cell(label.pmi), validity, text, flags)
        self._print(*cells, faint="abstained" in label.flags)

    def _print(
        self,
        layer: str,
        unit: str,
        pmi: str,
        validity: str,
        text: str,
        flags: str,
        *,
        faint: bool = False,
    ) -> None:
        if not self._terminal:
            print("\t".join((layer, unit, pmi, validity, text, flags)))
            return
        columns = shutil.get_terminal_size().columns
        width = max(1, min(24, columns // 4))
        # Narrower, the words would go before the figures do.
        figures = f"{pmi:>7} {validity:>8}" if columns >= ROOMY else f"{pmi:>7}"
        line = f"{layer[-width:]:<{width}} {unit:>5} {figures}  {text}"
        if flags:
            line += f"  [{flags}]"
        line = line[:columns]
        print(f"{FAINT}{line}{PLAIN}" if faint else line, flush=True)


def _cell(score: float | None) -> str:
    return "" if score is None else f"{score:.2f}"
