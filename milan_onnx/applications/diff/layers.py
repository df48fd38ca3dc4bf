"""Which layer of one run is which of another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from milan_onnx.applications.reopened import Place, choose_places, run_places
from milan_onnx.errors import RunError, UsageError
from milan_onnx.run import Run


@dataclass(frozen=True)
class LayerPair:
    """A layer of one run and its counterpart in the other."""

    before: Place
    """The first run's."""

    after: Place
    """The second's."""

    reason: str
    """Why they are taken to be the same layer."""


@dataclass(frozen=True)
class Layers:
    """All layers of two runs."""

    pairs: tuple[LayerPair, ...]
    """Those of both, in the order of the first run."""

    before: tuple[Place, ...]
    """Those that the first run alone has."""

    after: tuple[Place, ...]
    """Those that the second run alone has."""


def pair_layers(before: Run, after: Run, asked: Sequence[str]) -> Layers:
    """Pair the layers of two runs.

    ``asked``: pairs ``A=B`` of names, or names that both runs have; none: all layers, by module, by
    tensor, and what is left by its place where numbers of layers and units agree. Raises UsageError
    for a name that a run does not have, RunError where no layer has a counterpart.
    """
    mine, theirs = run_places(before), run_places(after)
    if asked:
        return Layers(tuple(_asked_pair(t, mine, theirs) for t in dict.fromkeys(asked)), (), ())
    pairs: list[LayerPair] = []
    modules = _modules(before), _modules(after)
    tensors = _tensors(mine), _tensors(theirs)
    for names, reason in ((modules, "the same module"), (tensors, "the same tensor")):
        pairs += _by_name(*_left(mine, theirs, pairs), *names, reason)
    pairs += _by_place(*_left(mine, theirs, pairs))
    if not pairs:
        raise RunError(
            f"no layer of the first run has a counterpart in the second: {_listed(mine)} against "
            f"{_listed(theirs)}",
            hint="say which belong together with --layer A=B",
        )
    order = {place.tensor: index for index, place in enumerate(mine)}
    pairs.sort(key=lambda pair: order[pair.before.tensor])
    left = _left(mine, theirs, pairs)
    return Layers(tuple(pairs), tuple(left[0]), tuple(left[1]))


def _asked_pair(text: str, mine: Sequence[Place], theirs: Sequence[Place]) -> LayerPair:
    before, equals, after = text.partition("=")
    if not before or (equals and not after):
        raise UsageError(f"--layer {text} is not A=B", hint="give a layer of each run")
    one, other = _chosen(mine, before, "first"), _chosen(theirs, after or before, "second")
    return LayerPair(one, other, "--layer")


def _chosen(places: Sequence[Place], name: str, which: str) -> Place:
    try:
        (place,) = choose_places(places, [name])
    except UsageError as error:
        told = error.message.replace("the run", f"the {which} run", 1)
        raise UsageError(told, hint=error.hint) from error
    return place


def _left(
    mine: Sequence[Place], theirs: Sequence[Place], pairs: Sequence[LayerPair]
) -> tuple[list[Place], list[Place]]:
    taken = {pair.before.tensor for pair in pairs}, {pair.after.tensor for pair in pairs}
    return (
        [place for place in mine if place.tensor not in taken[0]],
        [place for place in theirs if place.tensor not in taken[1]],
    )


def _modules(run: Run) -> dict[str, str]:
    """The module of each tensor that has one."""
    layers = run.manifest["layers"]
    return {layer["tensor"]: layer["module"] for layer in layers if layer.get("module")}


def _tensors(places: Sequence[Place]) -> dict[str, str]:
    return {place.tensor: place.tensor for place in places}


def _by_name(
    mine: Sequence[Place],
    theirs: Sequence[Place],
    before: Mapping[str, str],
    after: Mapping[str, str],
    reason: str,
) -> list[LayerPair]:
    """Layers with the same name, where that is one of each; ``before``, ``after``: names by
    tensor."""
    counts = (
        Counter(before.get(p.tensor) for p in mine),
        Counter(after.get(p.tensor) for p in theirs),
    )
    found = {after[place.tensor]: place for place in theirs if place.tensor in after}
    return [
        LayerPair(place, found[name], reason)
        for place in mine
        if (name := before.get(place.tensor)) and counts[0][name] == counts[1][name] == 1
    ]


def _by_place(mine: Sequence[Place], theirs: Sequence[Place]) -> list[LayerPair]:
    """Layers one after the other, where as many are left of each run and their units agree."""
    if [place.units for place in mine] != [place.units for place in theirs]:
        return []
    reason = "their place among the layers, and as many units"
    return [LayerPair(*both, reason) for both in zip(mine, theirs, strict=True)]


def _listed(places: Sequence[Place]) -> str:
    names = [f"{place.tensor} ({place.units} units)" for place in places]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{', '.join(names[:5])}{more}"
