"""What is wrong in a file of many lines: all of it is found, and named by its line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SHOWN = 20
"""Problems that a message names; of the others it says how many there are."""


@dataclass(frozen=True)
class Problem:
    """Something wrong in a file."""

    line: int
    """Line, from 1; 0 where it is of the whole file."""

    what: str
    """What is wrong."""

    def __str__(self) -> str:
        return f"line {self.line}: {self.what}" if self.line else self.what


def in_order(problems: Sequence[Problem]) -> tuple[Problem, ...]:
    """Each once, by line."""
    return tuple(sorted(set(problems), key=lambda p: (p.line, p.what)))


def listed(problems: Sequence[Problem], *, skipped: bool = False) -> str:
    """``3 bad entries: line 2: ...; line 7: ...``: how many there are, and the first twenty."""
    texts = "; ".join(map(str, problems[:SHOWN]))
    rest = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    entries = f"bad {'entry' if len(problems) == 1 else 'entries'}{' skipped' if skipped else ''}"
    return f"{len(problems)} {entries}: {texts}{rest}"
