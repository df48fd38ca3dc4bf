"""The module path of each node, as the exporter left it.

torch's dynamo exporter writes ``pkg.torch.onnx.name_scopes`` into a node's metadata; all calls of
a module share one path. Its older TorchScript exporter puts the path into the node's name, where a
Sequential's children repeat the prefix (``/layer4/layer4.1/relu``) and later calls of a reused
module get a number (``relu_1``). Other exporters that write ``scope/scope/op`` read the same way.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from milan_onnx.subject.graph import Graph

if TYPE_CHECKING:
    from onnx import NodeProto

NAME_SCOPES = "pkg.torch.onnx.name_scopes"
CLASS_HIERARCHY = "pkg.torch.onnx.class_hierarchy"

# The TorchScript exporter gives a folded weight a number for a name; any other keeps its own.
RENAMED_WEIGHT = re.compile(r"onnx::(Conv|ConvTranspose)_\d+")

# A file is not to be trusted: no module is nested this deep.
LONGEST_LIST = 1 << 16

Scope = tuple[str, ...]
"""The scopes around a node, outermost first, as the file writes them."""


@dataclass(frozen=True)
class Module:
    """A module that has nodes in the graph."""

    path: str
    """Dotted path, as ``named_modules`` writes it."""

    calls: tuple[tuple[int, ...], ...]
    """For each call told apart, its nodes. (Dynamo does not tell calls apart.)"""


@dataclass(frozen=True)
class Scopes:
    """The modules of a graph."""

    modules: Mapping[str, Module]
    """By path, every enclosing module included."""

    spellings: Mapping[str, Module]
    """By the path as spelt in the file, where that differs (``relu_1``): one call each."""

    of_node: tuple[str | None, ...]
    """The path of the innermost module of each node."""

    folded: Mapping[int, str | None]
    """Convolutions that hold a batch norm: node to the norm's path, None where that is lost."""


def read_scopes(graph: Graph) -> Scopes:
    """Read the module paths of all nodes."""
    scopes = [_scope(node) for node in graph.nodes]
    dynamo = [_dynamo_scope(node) is not None for node in graph.nodes]
    paths = _canonical_paths(
        graph, [() if new else s for s, new in zip(scopes, dynamo, strict=True)]
    )
    for scope, new in zip(scopes, dynamo, strict=True):
        if new:
            # Dynamo's entries are whole paths already.
            paths.update({scope[: end + 1]: path for end, path in enumerate(scope)})
    members: dict[Scope, list[int]] = {}
    for index, scope in enumerate(scopes):
        for end in range(1, len(scope) + 1):
            members.setdefault(scope[:end], []).append(index)
    return Scopes(
        modules=_modules(members, paths),
        spellings=_spellings(members, paths),
        of_node=tuple(paths[scope] if scope else None for scope in scopes),
        folded=dict(_folded(graph, scopes, paths)),
    )


def _modules(members: Mapping[Scope, list[int]], paths: Mapping[Scope, str]) -> dict[str, Module]:
    calls: dict[str, list[tuple[int, ...]]] = {}
    for scope, nodes in members.items():
        calls.setdefault(paths[scope], []).append(tuple(nodes))
    return {path: Module(path, tuple(sorted(found))) for path, found in calls.items()}


def _spellings(members: Mapping[Scope, list[int]], paths: Mapping[Scope, str]) -> dict[str, Module]:
    found: dict[str, Module] = {}
    for scope, nodes in members.items():
        path = _spelt(scope)
        if path != paths[scope] and path not in paths.values():
            found[path] = Module(path, (tuple(nodes),))
    return found


# --- one node -----------------------------------------------------------------------------------


def _scope(node: NodeProto) -> Scope:
    dynamo = _dynamo_scope(node)
    if dynamo is not None:
        return dynamo
    return tuple(part for part in node.name.split("/") if part)[:-1] if "/" in node.name else ()


def _dynamo_scope(node: NodeProto) -> Scope | None:
    text = next((entry.value for entry in node.metadata_props if entry.key == NAME_SCOPES), None)
    if text is None:
        return None
    # The last entry names the operator, not a module.
    names = (re.sub(r"@\d+$", "", name) for name in _string_list(text)[:-1])
    kept = (name for name in names if name and not name.startswith("_empty_nn_module_stack"))
    return tuple(dict.fromkeys(kept))


def _string_list(text: str) -> list[str]:
    if len(text) > LONGEST_LIST:
        return []
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return []
    return [str(entry) for entry in value] if isinstance(value, list | tuple) else []


# --- TorchScript names --------------------------------------------------------------------------


def _spelt(scope: Scope) -> str:
    """A dotted path from the components as they are."""
    path = ""
    previous = ""
    for part in scope:
        path, previous = _joined(path, previous, part), part
    return path


def _joined(path: str, parent: str, part: str) -> str:
    """``layer4`` and ``layer4.1`` make ``layer4.1``: a Sequential's child repeats its parent."""
    if parent and part.startswith(f"{parent}."):
        part = part[len(parent) + 1 :]
    return f"{path}.{part}" if path else part


def _canonical_paths(graph: Graph, scopes: list[Scope]) -> dict[Scope, str]:
    """The path of every scope, with the numbers of later calls taken off."""
    inside: dict[Scope, list[int]] = {}
    for index, scope in enumerate(scopes):
        for end in range(1, len(scope) + 1):
            inside.setdefault(scope[:end], []).append(index)
    contents = _Contents(graph, inside)
    paths: dict[Scope, str] = {(): ""}
    bases: dict[Scope, str] = {(): ""}
    # Parents come before children: a scope's first node is also its parent's.
    for scope in sorted(inside, key=len):
        parent = scope[:-1]
        bases[scope] = _base(scope, inside, contents)
        paths[scope] = _joined(paths[parent], bases[parent], bases[scope])
    return paths


def _base(scope: Scope, inside: Mapping[Scope, list[int]], contents: _Contents) -> str:
    """The last component without its call number, if it is a later call of its sibling.

    It is when the calls 1 to k are all there, in order, after one without a number, and all use
    the same weights.
    """
    match = re.fullmatch(r"(.+)_(\d+)", scope[-1])
    if not match or int(match[2]) == 0 or match[2].startswith("0"):
        return scope[-1]
    first = (*scope[:-1], match[1])
    calls = [first, *((*scope[:-1], f"{match[1]}_{k}") for k in range(1, int(match[2]) + 1))]
    if any(call not in inside for call in calls):
        return scope[-1]
    starts = [inside[call][0] for call in calls]
    same = all(contents.weights(call) == contents.weights(first) for call in calls)
    return match[1] if same and starts == sorted(starts) else scope[-1]


class _Contents:
    """Which weights the nodes of a scope use."""

    def __init__(self, graph: Graph, inside: Mapping[Scope, list[int]]) -> None:
        self.graph, self.inside = graph, inside

    def weights(self, scope: Scope) -> frozenset[str]:
        names = (n for index in self.inside[scope] for n in self._learned(index))
        return frozenset(self._identity(name) for name in names)

    def _learned(self, index: int) -> Iterator[str]:
        """Weights of rank 1 and more; scalars and integers are settings that calls may share."""
        for name in self.graph.weight_sources(index):
            tensor = self.graph.weights[name]
            if tensor.dims and tensor.data_type != tensor.INT64:
                yield name

    def _identity(self, name: str) -> str:
        """A folded weight is copied for each call, so its content counts, not its name."""
        tensor = self.graph.weights[name]
        if not name.startswith("onnx::") or not tensor.raw_data:
            return name
        return hashlib.sha256(tensor.raw_data).hexdigest()


# --- folded batch norms -------------------------------------------------------------------------


def _folded(
    graph: Graph, scopes: list[Scope], paths: Mapping[Scope, str]
) -> Iterator[tuple[int, str | None]]:
    for index, node in enumerate(graph.nodes):
        if node.op_type not in ("Conv", "ConvTranspose"):
            continue
        if _from_batch_norm(node):
            yield index, paths[scopes[index]]
        elif any(RENAMED_WEIGHT.fullmatch(name) for name in graph.weight_sources(index)):
            yield index, None


def _from_batch_norm(node: NodeProto) -> bool:
    """Whether dynamo says that a convolution stands where a batch norm stood."""
    keys = (NAME_SCOPES, CLASS_HIERARCHY)
    lists = [_string_list(entry.value) for entry in node.metadata_props if entry.key in keys]
    last = " ".join(part for names in lists for part in names[-1:]).lower()
    return "batch_norm" in last or "batchnorm" in last
