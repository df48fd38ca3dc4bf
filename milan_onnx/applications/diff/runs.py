"""``diff RUN_A RUN_B``: what became of each unit's label."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from milan_onnx.applications.diff.layers import LayerPair, Layers, pair_layers
from milan_onnx.applications.diff.matching import (
    FEWEST_PHOTOS,
    Correlations,
    Match,
    by_activations,
    by_number,
    choose_match,
)
from milan_onnx.applications.diff.result import LayerDiff, RunDiff, percent
from milan_onnx.applications.diff.units import Meaning, UnitDiff
from milan_onnx.applications.reopened import check_manifest
from milan_onnx.applications.similarity import choose_similarity
from milan_onnx.choice import Choice
from milan_onnx.errors import GateNotMet, RunError, UsageError
from milan_onnx.labels import UnitLabel, summarize
from milan_onnx.progress import Reporter, Silent
from milan_onnx.reporting import display_names
from milan_onnx.run import Run, load_run

OTHER_PHOTOS = "the runs are of other photos"
ROUNDING = 1e-9
NO_FINGERPRINTS = "runs made from another tool's exemplars have no fingerprints"


@dataclass(frozen=True)
class DiffOptions:
    """How two runs are compared."""

    match: Literal["auto", "number", "activations"] = "auto"
    """Which units are taken to be the same."""

    layers: tuple[str, ...] = ()
    """Pairs ``A=B`` of layers, or names that both runs have; none: all, paired by name."""

    level: float = 0.5
    """Correlation of activations below which units are not matched by them."""

    similarity: bool | None = None
    """Sentence similarity: True demands it, None takes it where it is installed."""

    similar: float = 0.95
    """Cosine from which on descriptions in other words mean the same."""

    def check(self) -> None:
        """Raise UsageError for a value out of range."""
        for name, value in (("--level", self.level), ("--similar", self.similar)):
            if not 0 < value <= 1:
                raise UsageError(f"{name} {value:g} is out of range", hint="use 0 < x <= 1")


def diff_runs(
    before: Run | str | Path,
    after: Run | str | Path,
    options: DiffOptions | None = None,
    reporter: Reporter | None = None,
) -> RunDiff:
    """Compare the labels of two runs, of two versions of a model or of two ways to compute it.

    Neither model, photos nor captioner are needed. Raises the errors of `milan_onnx.errors`:
    RunError for a damaged run, for layers without a counterpart and where activations are to be
    compared of other photos; UsageError for a layer that is not there or a value out of range.
    """
    options, say = options or DiffOptions(), reporter or Silent()
    options.check()
    runs = _opened(before), _opened(after)
    layers = pair_layers(*runs, options.layers)
    for pair in layers.pairs:
        say.choice(f"layer {pair.before.tensor}", Choice(pair.after.tensor, pair.reason))
    meaning = _meaning(options, say)
    found = [_layer(runs, pair, meaning, options, say) for pair in layers.pairs]
    return RunDiff(
        runs=(_run_facts(runs[0]), _run_facts(runs[1])),
        layers=tuple(found),
        only_before=tuple(place.tensor for place in layers.before),
        only_after=tuple(place.tensor for place in layers.after),
        settings={
            "match": options.match,
            "layers": list(options.layers),
            "level": options.level,
            "similarity": meaning.similarity is not None,
            "similar": options.similar,
        },
        notes=tuple(_notes(*runs, layers)),
    )


def check_gates(found: RunDiff, max_changed: float | None, max_lost: float | None) -> None:
    """Raise GateNotMet where a larger share of descriptions changed, or was lost, than allowed."""
    count, broken = found.count, []
    if max_changed is not None and count.share > max_changed + ROUNDING:
        broken.append(
            f"{count.changed} of {count.described} descriptions say something else "
            f"({percent(count.share)}), more than --max-changed {percent(max_changed)}"
        )
    if max_lost is not None and count.lost_share > max_lost + ROUNDING:
        broken.append(
            f"{count.verdicts['lost']} of {count.described_before} descriptions were lost "
            f"({percent(count.lost_share)}), more than --max-lost {percent(max_lost)}"
        )
    if broken:
        raise GateNotMet("; ".join(broken))


def _opened(run: Run | str | Path) -> Run:
    opened = run if isinstance(run, Run) else load_run(run)
    check_manifest(opened)
    return opened


def _meaning(options: DiffOptions, say: Reporter) -> Meaning:
    similarity = choose_similarity(options.similarity, say)
    words, reason = "the same words but for modifiers", "no sentence similarity"
    if similarity is not None:
        words += f", or a cosine of {options.similar:g} or more"
        reason = "--similarity" if options.similarity else "its extra is installed"
    say.choice("the same meaning", Choice(words, reason))
    return Meaning(similarity, options.similar)


def _layer(
    runs: tuple[Run, Run], pair: LayerPair, meaning: Meaning, options: DiffOptions, say: Reporter
) -> LayerDiff:
    match = _match(runs, pair, options)
    say.choice(f"units of {pair.before.tensor} matched by", match.how)
    names = pair.before.tensor, pair.after.tensor
    return LayerDiff(
        name=_name(runs, pair),
        before=names[0],
        after=names[1],
        pairing=pair.reason,
        match=Choice(match.how.value, match.how.reason),
        units=tuple(_units(runs, names, match, meaning)),
        summaries=(summarize(names[0], runs[0].labels), summarize(names[1], runs[1].labels)),
    )


def _name(runs: tuple[Run, Run], pair: LayerPair) -> str:
    before = display_names(runs[0]).get(pair.before.tensor, pair.before.tensor)
    after = display_names(runs[1]).get(pair.after.tensor, pair.after.tensor)
    return before if before == after else f"{before} → {after}"


def _match(runs: tuple[Run, Run], pair: LayerPair, options: DiffOptions) -> Match:
    """Raises RunError where activations are to be compared and cannot."""
    layers = runs[0].layer(pair.before.tensor), runs[1].layer(pair.after.tensor)
    correlations = Correlations(*layers) if _same_photos(*runs) else None
    if correlations is None or not correlations.enough:
        why = OTHER_PHOTOS if correlations is None else _too_few(correlations)
        if options.match == "activations":
            raise RunError(
                f"{why}, so their activations cannot be compared",
                hint="describe both models with the same photos, or use --match number",
            )
        reason = "--match" if options.match == "number" else why
        return by_number(*layers, None, reason)
    if options.match == "number":
        return by_number(*layers, correlations, "--match")
    if options.match == "activations":
        return by_activations(correlations, options.level, "--match")
    return choose_match(correlations, options.level)


def _same_photos(before: Run, after: Run) -> bool:
    same = before.manifest["probe"]["sha256"] == after.manifest["probe"]["sha256"]
    return bool(same)


def _too_few(correlations: Correlations) -> str:
    if not correlations.photos:
        return NO_FINGERPRINTS
    return f"fingerprints of {correlations.photos} photos tell little (of {FEWEST_PHOTOS} they do)"


def _units(
    runs: tuple[Run, Run], names: tuple[str, str], match: Match, meaning: Meaning
) -> list[UnitDiff]:
    """All units of a layer: the pairs, then what only one of the runs has."""
    before, after = (
        {label.unit: label for label in run.labels if label.layer == name}
        for run, name in zip(runs, names, strict=True)
    )
    matched = zip(match.before.tolist(), match.after.tolist(), strict=True)
    pairs: list[tuple[UnitLabel | None, UnitLabel | None]]
    pairs = [(before.pop(one), after.pop(other)) for one, other in matched]
    pairs += [(before[unit], None) for unit in sorted(before)]
    pairs += [(None, after[unit]) for unit in sorted(after)]
    correlations = np.append(match.correlations, np.full(len(pairs) - len(match.before), np.nan))
    same_photos = _same_photos(*runs)
    return [
        UnitDiff(
            before=one,
            after=other,
            verdict=meaning.verdict(one, other, cosine),
            correlation=None if math.isnan(correlation) else correlation,
            exemplars=_exemplar_overlap(one, other) if same_photos else None,
            similarity=cosine,
        )
        for (one, other), cosine, correlation in zip(
            pairs, meaning.cosines(pairs), correlations.tolist(), strict=True
        )
    ]


def _exemplar_overlap(before: UnitLabel | None, after: UnitLabel | None) -> float | None:
    if before is None or after is None:
        return None
    one = {exemplar.image for exemplar in before.exemplars}
    other = {exemplar.image for exemplar in after.exemplars}
    return len(one & other) / len(one | other) if one and other else None


def _run_facts(run: Run) -> dict[str, Any]:
    manifest = run.manifest
    return {
        "run": str(run.path or ""),
        "model": dict(manifest["model"]),
        "bundle": dict(manifest["bundle"]),
        "photos": manifest["probe"]["sha256"],
    }


def _notes(before: Run, after: Run, layers: Layers) -> list[str]:
    """What else differs between the runs, so that not all is put down to the models."""
    one, other = before.manifest, after.manifest
    notes = [
        f"the layer {place.tensor} ({place.units} units) is only in the {run} run and not compared"
        for run, places in (("first", layers.before), ("second", layers.after))
        for place in places
    ]
    if one["model"].get("sha256") == other["model"].get("sha256"):
        notes.append("both runs are of the same model file")
    if not _same_photos(before, after):
        notes.append(f"{OTHER_PHOTOS}, so descriptions may differ where the models do not")
    if one["bundle"]["sha256"] != other["bundle"]["sha256"]:
        notes.append("the runs have other captioners, so descriptions may differ by them alone")
    changed = _changed_settings(one, other)
    if changed:
        notes.append(f"the runs have other settings: {', '.join(changed)}")
    return notes


def _changed_settings(one: Any, other: Any) -> list[str]:
    """Settings that decide descriptions and are not the same."""
    pairs = [
        (name, one.get(part), other.get(part))
        for name, part in (("search", "search"), ("preprocessing", "preprocessing"))
    ]
    pairs.append(("validity", one.get("validity") is None, other.get("validity") is None))
    options = one.get("options", {}), other.get("options", {})
    pairs += [
        (name, options[0].get(name), options[1].get(name))
        for name in ("exemplars", "quantile", "candidates")
    ]
    return [name for name, mine, theirs in pairs if mine != theirs]
