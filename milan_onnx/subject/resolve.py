"""A layer by the name that its user knows it by.

A name is tried as a tensor, a node, a module path and the path of a weight, in that order; then as
the unique end of one of these; then as a glob (``*`` within a component, ``**`` across). ``@12``
is the layer at an index; ``tensor:``, ``node:``, ``module:`` and ``weight:`` force one meaning.

A module stands for what it returns at its last call, as a forward hook in PyTorch sees it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from milan_onnx.errors import LayerAmbiguous, LayerNotFound, LayerUnsuitable, UsageError
from milan_onnx.subject.graph import Graph
from milan_onnx.subject.layers import Analysis, Kind, Layer, analyse, with_layout
from milan_onnx.subject.missing import why_missing
from milan_onnx.subject.model import Subject

NAMESPACES = ("tensor", "node", "module", "weight")
GLOB = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Resolution:
    """The layer that a name stands for."""

    layer: Layer
    """The layer."""

    reason: str
    """How the name was read, in one clause."""

    warnings: tuple[str, ...] = ()
    """What may not be as the user thinks, one sentence each."""


@dataclass(frozen=True)
class _Match:
    """A tensor that a name was found to mean."""

    tensor: str
    reason: str
    warnings: tuple[str, ...] = ()


def resolve(subject: Subject, name: str, *, layout: Kind | None = None) -> Resolution:
    """The one layer of a name.

    Raises LayerNotFound (with near matches, or why the module left nothing in the graph),
    LayerAmbiguous (with a way to pick each) and LayerUnsuitable (with what the tensor is).
    """
    names = _Names(subject, analyse(subject))
    found = names.find(name)
    distinct = list({match.tensor: match for match in found}.values())
    if not distinct:
        raise names.missing(name)
    if len(distinct) > 1:
        raise names.ambiguous(name, [match.tensor for match in distinct])
    return names.resolution(name, distinct[0], layout)


def resolve_many(
    subject: Subject, names: str | Iterable[str], *, layout: Kind | None = None
) -> tuple[Resolution, ...]:
    """The layers of several names, of comma lists and of globs; each layer once, in asked order.

    A glob gives all its layers and leaves out what has no units. Raises as `resolve` does, and
    LayerNotFound for a glob that fits nothing.
    """
    known = _Names(subject, analyse(subject))
    found: dict[str, Resolution] = {}
    for name in known.split([names] if isinstance(names, str) else names):
        for resolution in _several(subject, known, name, layout):
            found.setdefault(resolution.layer.tensor, resolution)
    return tuple(found.values())


def _several(
    subject: Subject, known: _Names, name: str, layout: Kind | None
) -> Iterator[Resolution]:
    if not GLOB.search(name) or known.exact(name):
        yield resolve(subject, name, layout=layout)
        return
    suitable = [m for m in known.find(name) if m.tensor in known.analysis.by_tensor]
    if not suitable:
        raise known.missing(name)
    for match in sorted(suitable, key=lambda m: known.analysis.by_tensor[m.tensor].index):
        yield known.resolution(name, match, layout)


class _Names:
    """All names of a subject, and what they mean."""

    def __init__(self, subject: Subject, analysis: Analysis) -> None:
        self.subject, self.analysis = subject, analysis
        self.graph: Graph = analysis.graph
        graph = self.graph
        self.tensors = [*graph.producer, *graph.weights, subject.input.name]
        self.nodes: dict[str, list[int]] = {}
        for index, node in enumerate(graph.nodes):
            self.nodes.setdefault(node.name, []).append(index)
        self.nodes.pop("", None)
        self.modules = {**analysis.scopes.spellings, **analysis.scopes.modules}
        self.weights: dict[str, list[str]] = {}
        for weight in graph.weights:
            if "." in weight:
                self.weights.setdefault(weight.rpartition(".")[0], []).append(weight)

    def of(self, namespace: str) -> Iterable[str]:
        """The names in a namespace."""
        return {
            "tensor": self.tensors,
            "node": self.nodes,
            "module": self.modules,
            "weight": self.weights,
        }[namespace]

    def split(self, names: Iterable[str]) -> Iterator[str]:
        """Names with comma lists taken apart, except where the comma is in the name."""
        for name in names:
            if "," not in name or self.exact(name):
                yield name
            else:
                yield from (part.strip() for part in name.split(",") if part.strip())

    # --- finding --------------------------------------------------------------------------------

    def find(self, name: str) -> list[_Match]:
        """All that a name can mean at the first step of the order that finds anything."""
        if name.startswith("@"):
            return [self._indexed(name)]
        chosen, rest = self._prefix(name)
        exact = self.exact(name)
        if exact:
            return exact
        for step in (self._suffix, self._glob):
            found = [match for space in chosen for match in step(space, rest)]
            if found:
                return found
        return []

    def exact(self, name: str) -> list[_Match]:
        """The first namespace that has the very name."""
        chosen, rest = self._prefix(name)
        meanings = [(space, self._meaning(space, rest)) for space in chosen]
        meanings = [(space, found) for space, found in meanings if found]
        if not meanings:
            return []
        first = meanings[0][1]
        others = [(space, found[-1]) for space, found in meanings[1:] if space != "weight"]
        return [self._with_rivals(match, rest, others) for match in first]

    def _with_rivals(self, match: _Match, name: str, others: list[tuple[str, _Match]]) -> _Match:
        """Say so when the same name also means another tensor."""
        rivals = tuple(
            f"{name} is also a {space}, whose output is {other.tensor}: write {space}:{name} for it"
            for space, other in others
            if other.tensor != match.tensor
        )
        return _Match(match.tensor, match.reason, (*match.warnings, *rivals))

    def _prefix(self, name: str) -> tuple[Sequence[str], str]:
        space, colon, rest = name.partition(":")
        if colon and space in NAMESPACES and name not in self.graph.producer:
            return (space,), rest
        return NAMESPACES, name

    def _indexed(self, name: str) -> _Match:
        layers = self.analysis.layers
        if not re.fullmatch(r"@\d+", name) or int(name[1:]) >= len(layers):
            raise LayerNotFound(
                f"there is no layer {name}", hint=f"layers go from @0 to @{len(layers) - 1}"
            )
        return _Match(layers[int(name[1:])].tensor, f"the layer at index {name[1:]}")

    def _meaning(self, space: str, name: str) -> list[_Match]:
        meanings: dict[str, Callable[[str], list[_Match]]] = {
            "tensor": self._tensor,
            "node": self._node,
            "module": self._module,
            "weight": self._weight,
        }
        return meanings[space](name)

    def _tensor(self, name: str) -> list[_Match]:
        return [_Match(name, f"the tensor {name}")] if name in self.tensors else []

    def _node(self, name: str) -> list[_Match]:
        outputs = [self.graph.nodes[index].output[0] for index in self.nodes.get(name, ())]
        return [_Match(output, f"the output of the node {name}") for output in outputs]

    def _module(self, name: str) -> list[_Match]:
        module = self.modules.get(name)
        outputs = self._returned(module.calls[-1]) if module else []
        if module is None or not outputs:
            return []
        warnings = []
        if len(module.calls) > 1 or len(outputs) > 1:
            warnings.append(self._several_outputs(name, len(module.calls), outputs))
        return [_Match(outputs[-1], f"what the module {name} returns", tuple(warnings))]

    def _several_outputs(self, name: str, calls: int, outputs: list[str]) -> str:
        if calls > 1:
            return f"{name} is called {calls} times: {outputs[-1]} is from its last call"
        return (
            f"{len(outputs)} outputs of {name} are used outside it, because it is called again "
            f"or returns several: {outputs[-1]} is the last, {outputs[0]} the first"
        )

    def _returned(self, nodes: tuple[int, ...]) -> list[str]:
        """The outputs of a set of nodes that are used outside it; if none are, those not used."""
        graph, inside = self.graph, set(nodes)
        made = [
            name
            for index in nodes
            for name in graph.nodes[index].output
            if name in graph.dependent and not self._not_float(name)
        ]
        leaving = [
            name
            for name in made
            if name in graph.outputs or not inside.issuperset(graph.readers.get(name, ()))
        ]
        return leaving or [name for name in made if not graph.readers.get(name)]

    def _not_float(self, name: str) -> bool:
        reason = self.analysis.why_unsuitable(self.subject, name)
        return name not in self.analysis.by_tensor and reason.startswith("it holds")

    def _weight(self, name: str) -> list[_Match]:
        weights = self.weights.get(name, [])
        readers = {weight: self.graph.weight_readers(weight) for weight in weights}
        if not any(readers.values()):
            return []
        if any(len(found) > 1 for found in readers.values()):
            # Exporters merge equal weights, so a shared one does not tell whose it is.
            chosen = sorted({index for found in readers.values() for index in found})
        else:
            chosen = [max(index for found in readers.values() for index in found)]
        outputs = [self.graph.nodes[index].output[0] for index in chosen]
        return [_Match(output, f"what the weights of {name} make") for output in outputs]

    def _suffix(self, space: str, name: str) -> list[_Match]:
        if not name:
            return []
        found = []
        for full in self.of(space):
            if full.endswith((f".{name}", f"/{name}")):
                warning = f"no layer is called exactly {name}: {space} {full} was taken for it"
                found += [
                    _Match(match.tensor, match.reason, (warning, *match.warnings))
                    for match in self._meaning(space, full)
                ]
        return found

    def _glob(self, space: str, name: str) -> list[_Match]:
        if not GLOB.search(name):
            return []
        pattern = re.compile(_glob_regex(name))
        fitting = [full for full in self.of(space) if pattern.fullmatch(full)]
        return [match for full in fitting for match in self._meaning(space, full)]

    # --- answers --------------------------------------------------------------------------------

    def resolution(self, name: str, match: _Match, layout: Kind | None) -> Resolution:
        """The layer of a match. Raises LayerUnsuitable when it has no units."""
        layer = self.analysis.by_tensor.get(match.tensor)
        if layer is None:
            reason = self.analysis.why_unsuitable(self.subject, match.tensor)
            raise LayerUnsuitable(
                f"{name} is {match.reason}, which has no units: {reason}",
                hint="milan-onnx layers lists what has",
            )
        layer = with_layout(layer, layout) if layout else layer
        return Resolution(layer, match.reason, (*match.warnings, *self._folded(name, layer)))

    def _folded(self, name: str, layer: Layer) -> list[str]:
        """Say so when the value is after a batch norm that the name does not mention."""
        index = self.graph.producer[layer.tensor]
        if index not in self.analysis.scopes.folded:
            return []
        norm = self.analysis.scopes.folded[index]
        if norm is None:
            return [f"{name} holds its folded batch norm: its value is the one after it"]
        asked = name.removeprefix("module:")
        if norm == asked or norm.startswith(f"{asked}."):
            return []
        return [f"{name} holds the folded batch norm {norm}: its value is the one after it"]

    def ambiguous(self, name: str, tensors: list[str]) -> LayerAmbiguous:
        """The error for a name with several meanings."""
        shown = [f"tensor:{tensor}" for tensor in tensors[:8]]
        more = f" and {len(tensors) - 8} more" if len(tensors) > 8 else ""
        return LayerAmbiguous(
            f"{name} fits {len(tensors)} layers: {', '.join(shown)}{more}",
            hint="write one of these",
        )

    def missing(self, name: str) -> UsageError:
        """The error for a name with no meaning."""
        chosen, rest = self._prefix(name)
        known = why_missing(self.analysis, rest) if "module" in chosen else None
        if known:
            return LayerNotFound(known[0], hint=known[1])
        everything = dict.fromkeys(
            [*self.modules, *self.weights, *self.nodes, *self.graph.producer]
        )
        near = difflib.get_close_matches(rest, list(everything)[:20000], n=5, cutoff=0.6)
        hint = f"did you mean {', '.join(near)}?" if near else "milan-onnx layers lists them"
        return LayerNotFound(
            f"no tensor, node, module or weight of the model is called {rest}", hint=hint
        )


def _glob_regex(glob: str) -> str:
    """``*`` and ``?`` stay within a component, ``**`` does not, ``[ab]`` is one of a set."""
    parts = re.split(r"(\*\*|\*|\?|\[[^\]]+\])", glob)
    special = {"**": ".*", "*": "[^./]*", "?": "[^./]"}
    return "".join(
        special.get(part) or (part if re.fullmatch(r"\[[^\]]+\]", part) else re.escape(part))
        for part in parts
    )
