"""What people call the labels of labelled photos and the classes of ImageNet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

NAMES = Path(__file__).with_name("names.tsv")
COLOUR_LABEL = "the color "
"""What labels of colour regions begin with."""


@dataclass(frozen=True)
class Names:
    """What a region may be called."""

    own: tuple[str, ...] = ()
    """Names of the thing itself, the most common first; may be none where people have none."""

    general: tuple[str, ...] = ()
    """More general names, the nearest first."""

    @property
    def all(self) -> tuple[str, ...]:
        """All names, own ones first."""
        return (*self.own, *self.general)


@dataclass(frozen=True)
class NameTable:
    """Names by the label of a region or the number of the backbone's class."""

    entries: Mapping[str, Names]
    """Keys are ``label L`` and ``class N``."""

    @classmethod
    def read(cls, path: Path = NAMES) -> NameTable:
        """Read the table of the package."""
        entries: dict[str, Names] = {}
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line.startswith("#"):
                key, own, general = line.split("\t")
                entries[key] = Names(_split(own), _split(general))
        return cls(entries)

    def of_label(self, label: str) -> Names:
        """Names of a region's label; none when the table does not know it."""
        return self.entries.get(f"label {label}", Names())

    def of_class(self, number: int) -> Names:
        """Names of a class of the backbone."""
        return self.entries.get(f"class {number}", Names())


def _split(cell: str) -> tuple[str, ...]:
    return tuple(name for name in cell.split(";") if name)
