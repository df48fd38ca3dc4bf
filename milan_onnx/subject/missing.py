"""Why a module that exists in PyTorch has nothing in the graph, as far as that can be known."""

from __future__ import annotations

import re
from collections.abc import Iterator

from milan_onnx.subject.layers import Analysis

VANISHING = re.compile(r"drop|identity|pad|stochastic_depth|flatten", re.IGNORECASE)
NORM = re.compile(r"(^|_)(bn|norm|batch_?norm)[a-z_]*\d*$", re.IGNORECASE)

LEAVES_NOTHING = "dropout, identity, padding and reshaping leave nothing in an exported graph"


def why_missing(analysis: Analysis, name: str) -> tuple[str, str] | None:
    """The message and the hint for a module of that name, or None when nothing is known."""
    parent, _, last = name.rpartition(".")
    if last.isdecimal():
        return _numbered(analysis, parent, int(last), name)
    if NORM.search(last):
        found = _folded_norm(analysis, parent, last, name)
        if found:
            return found
    if VANISHING.search(last) or name in analysis.scopes.modules:
        return _vanished(analysis, name, parent)
    return None


def _folded_beside(analysis: Analysis, parent: str) -> list[str]:
    """The convolutions right under a module that hold a batch norm whose name is lost."""
    scopes = analysis.scopes
    folded = (scopes.of_node[index] for index, norm in scopes.folded.items() if norm is None)
    return [path for path in folded if path and path.rpartition(".")[0] == parent]


def _folded_norm(analysis: Analysis, parent: str, last: str, name: str) -> tuple[str, str] | None:
    """A batch norm beside convolutions that hold one: conv2 is taken to hold bn2."""
    beside = _folded_beside(analysis, parent)
    number = _number(last)
    same = [path for path in beside if _number(path) == number]
    # Where a norm comes before its convolution, the first is left and the numbers do not match.
    if len(same) == 1 and not _has_norm(analysis, parent):
        return _folded_into(name, same[0])
    if not beside:
        return None
    return (
        f"{name} has nothing in the graph",
        f"batch norms are folded into convolutions on export: {', '.join(beside)} "
        f"{'hold' if len(beside) > 1 else 'holds'} the value after one",
    )


def _has_norm(analysis: Analysis, parent: str) -> bool:
    pairs = (path.rpartition(".") for path in analysis.scopes.modules)
    return any(above == parent and NORM.search(last) for above, _, last in pairs)


def _number(name: str) -> str:
    return name[len(name.rstrip("0123456789")) :]


def _folded_into(name: str, convolution: str) -> tuple[str, str]:
    return (
        f"{name} was folded into {convolution} when the model was exported",
        f"use {convolution}, which holds the value after {name}",
    )


def _numbered(analysis: Analysis, parent: str, number: int, name: str) -> tuple[str, str] | None:
    """A child of a Sequential: its neighbours tell what became of it."""
    children = sorted(_children(analysis, parent))
    if not children:
        return None
    before = max((child for child in children if child < number), default=None)
    previous = f"{parent}.{before}"
    if before == number - 1 and previous in _folded_beside(analysis, parent):
        return _folded_into(name, previous)
    listed = ", ".join(f"{parent}.{child}" for child in children)
    hint = f"{LEAVES_NOTHING}; what {parent} did leave is {listed}"
    return f"{name} has nothing in the graph", hint


def _children(analysis: Analysis, parent: str) -> Iterator[int]:
    start = f"{parent}." if parent else ""
    for path in analysis.scopes.modules:
        rest = path.removeprefix(start)
        if path.startswith(start) and rest.isdecimal():
            yield int(rest)


def _vanished(analysis: Analysis, name: str, parent: str) -> tuple[str, str] | None:
    known = parent in analysis.scopes.modules or any(
        weight.startswith(f"{parent}.") for weight in analysis.graph.weights
    )
    if parent and not known:
        return None
    return (
        f"{name} has nothing in the graph",
        f"{LEAVES_NOTHING}: use the layer before it, which has the same value",
    )
