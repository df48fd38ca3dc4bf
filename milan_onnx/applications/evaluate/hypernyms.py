"""More general names of a class, from the table of names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from milan_onnx.regions import NameTable
from milan_onnx.wording import normalise


def hypernyms_of(table: NameTable) -> Callable[[Sequence[str]], tuple[str, ...]]:
    """A function from names of one thing to more general ones, nearest first; none if unknown.

    A name is found by the label or class that has it as its own first name, plurals folded.
    """
    known: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for key, names in table.entries.items():
        label = key.removeprefix("label ") if key.startswith("label ") else ""
        for name in {label, *names.own[:1]} - {""}:
            known[normalise(name)] += [*names.own, *names.general]

    def general(names: Sequence[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(wider for name in names for wider in known[normalise(name)]))

    return general
