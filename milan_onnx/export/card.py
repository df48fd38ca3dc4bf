"""The model card of a bundle that was trained here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

CARD = """# {name} {version}

A captioner of units for `milan-onnx`: given the image regions that excite a unit most, it says what
they share. Method: MILAN (Hernandez et al., ICLR 2022), trained on described units.

## What is in it

- Encoder: {backbone}, frozen. Features of an exemplar: {parts}.
- Captioner: {captioners} with additive attention over the exemplars, state {hidden}.
- Language model: LSTM, {lm_layers} of state {lm_hidden}, trained on the same phrases.
- Vocabulary: {words} words. Search: {search}.

## Training data

{training}
{held_out} described units were held out; loss a token on them: captioner {captioner:.3f}, language
model {lm:.3f}. Seed {seed}.
{sources}
## Figures

{figures}
{failures}"""

NAMES = {
    "annotated": "{count} described units, with their real exemplars and what was written of them",
    "mirrored": "{count} of them in mirrored photos, left and right exchanged",
    "labels": "{count} virtual units: regions of labelled photos that share a label, with up to a "
    "fifth of others, called by the label or a more general name (WordNet 3.0)",
    "classes": "{count} units of the encoder's own classifier whose photos show their class, named "
    "by it",
    "drawings": "{count} units of drawn images: stripes, chequers, dots, colours, shapes, text",
}
SOURCED = """
Sources of the photos and labels and their licences, as stated by the copies used and not legally
checked; several are for research or non-commercial use only, so the same must be assumed of these
weights. The phrases of described units are CC0.

{listed}
"""
FAILURES = """
## Known failures

- The annotators of the described units were careful machines that share habits; their words are
  plain, and so are these. One annotator wrote of most units.
- Units that detect nothing nameable still get a description; its confidence tells. A description of
  a mixed unit often names the commonest of its exemplars.
- Places in the frame ("top corners of pictures") are said of units that answer padding, which is
  common in mobile networks and true; elsewhere they may be said by mistake.
- Class names are those of ImageNet, and the encoder never saw other classes.
- Exemplars of drawings and of other kinds of images than photos (X-rays, microscopy, maps) are far
  from what was described, and so are what is said of them and its confidence.
- The planted units of `milan-onnx selftest` see drawn images, and drawings of that kind were
  trained on: passing it says that an installation works, and little about photos.
"""

SOURCES = (
    ("COCO 2017 samples, with panoptic masks", "annotations CC BY 4.0, photos Flickr terms"),
    ("COCO-Stuff samples (SPADE)", "CC BY-NC-SA 4.0 repository, annotations CC BY 4.0"),
    ("ADE20K samples", "annotations BSD-3, photos research and education only"),
    ("Open Images samples, DoorDetect", "photos CC BY 2.0, annotations CC BY 4.0 or not stated"),
    ("ImageNet samples, three collections, and Imagenette", "non-commercial research"),
    ("NIPS 2017 adversarial challenge, clean images", "CC BY 2.0 per image"),
    ("Caltech-101 samples", "CC BY 4.0"),
    ("Describable Textures, 10 classes", "research use"),
    ("CamVid (SegNet tutorial)", "CC BY-NC 4.0 copy, research use"),
    ("LabelMeFacade", "non-commercial and research use"),
    ("Facades (a Roboflow export)", "CC BY 4.0 as its annotations say"),
    ("15 scenes, Intel scenes, Weizmann horses", "research use or unclear"),
    ("Multi-class Weather, TACO litter", "CC BY 4.0 as stated"),
    ("Houses, cats and dogs, licence plates, car parts, FASSEG faces", "none stated"),
    ("YouTube Faces landmarks (Udacity)", "MIT repository, frames for research use"),
    ("Clothing Co-Parsing", "Apache-2.0 repository, photos' rights unclear"),
    ("PACS samples", "research use"),
    ("Animals, raccoons, kangaroos, monkeys", "photos from the web, rights unclear"),
    ("Rooms (mAP sample, Amenity)", "Apache-2.0 and CC BY 4.0"),
    ("Grocery Store Dataset, TrashNet, BCCD", "MIT"),
    ("Food photos", "public domain or CC BY, BY-SA, BY-ND 2.0 per image"),
    ("Tux Paint stamps", "GPL-2 collection"),
    ("Open Clip Art", "public domain"),
    ("Noto Color Emoji, rendered", "OFL 1.1"),
    ("composites, patterns, text, colour regions", "made for this set from the above"),
    ("WordNet 3.0", "WordNet licence"),
)


PLANTED = """### Planted units

{right} of {units} units that are detectors of something known are described rightly; with the
labels of other units {shuffled} would be (`milan-onnx selftest`; docs/selftest.md)."""
NOT_MEASURED = "Not measured yet: see benchmarks/quality.py."
DESCRIBED = """### Described units of a network that was not trained on

{units_coherent} units of {networks} of coherence {least_coherence:g} and more (`milan-onnx evaluate
--units units.jsonl.gz --split {split}`; docs/evaluate.md says what is measured). Search settings
and confidences were chosen on them."""
VIRTUAL = """### Virtual units of the split "{split}"

{units} units of {concepts} concepts, none of whose photos was trained on (`milan-onnx evaluate
--virtual`; docs/evaluate.md says what counts as right). 95 % intervals over concepts."""
CLASSES = """### The last layer of EfficientNet-Lite1

1,000 units judged by the names of the classes (`milan-onnx evaluate RUN --truth classes.txt`). That
network was not used in training."""
CONFIDENCE = """### Confidence

{units} units; right is a similarity of at least {right_from:g}. Expected calibration error
{expected_calibration_error:.3f}, by cross-validation over layers; similarity of all
{similarity:.3f}, of the more confident half {similarity_of_confident_half:.3f}."""
BY_EYE = (
    "### By eye\n\n"
    "Of {units} random units of {where}, looked at before the label was shown, {right} labels were "
    "right,\n{partly} partly right (true of some exemplars, too broad or too special) and {wrong} "
    "wrong."
)


def model_card(facts: Mapping[str, Any], measured: Mapping[str, Any]) -> str:
    """The card's text from the facts of a training run and what benchmarks/quality.py measured."""
    parts = [
        *_judged(DESCRIBED, measured.get("described")),
        *_confidence(measured.get("confidence")),
        *_by_eye(measured.get("by_eye")),
        *_judged(CLASSES, measured.get("classes")),
        *_judged(VIRTUAL, measured.get("virtual")),
        *_planted(measured.get("planted")),
    ]
    own = facts["annotations"] == "units"
    listed = "\n".join(f"- {source}: {licence}" for source, licence in SOURCES)
    return CARD.format(
        **{
            name: facts[name]
            for name in ("name", "version", "backbone", "words", "held_out", "seed")
        },
        **facts["losses"],
        captioners="LSTM" if facts["members"] == 1 else f"mean of {facts['members']} LSTMs",
        hidden=facts["sizes"]["hidden"],
        lm_hidden=facts["lm_sizes"]["hidden"],
        lm_layers=facts["lm_sizes"]["layers"],
        parts=", ".join(facts["parts"]),
        search=", ".join(f"{name} {value}" for name, value in facts["search"].items() if value),
        training=_training(facts),
        sources=SOURCED.format(listed=listed)
        if own
        else "Licence and terms are those of the data.",
        figures="\n\n".join(parts) or NOT_MEASURED,
        failures=FAILURES if own else "",
    )


def _training(facts: Mapping[str, Any]) -> str:
    """What was learned from, a line a source."""
    units, lines = facts["units"], []
    first, last = (
        {name: facts[key][name] for name in units} if facts[key] else {}
        for key in ("shares", "shares_at_end")
    )
    for name, count in units.items():
        line = f"- {NAMES[name].format(count=count)}; {_share(name, first)} of the examples"
        lines.append(f"{line} at first, {_share(name, last)} at last" if last else line)
    return "\n".join([*lines, ""])


def _share(name: str, shares: Mapping[str, float]) -> str:
    return f"{shares[name] / sum(shares.values()):.0%}"


def _confidence(found: Mapping[str, Any] | None) -> list[str]:
    if not found:
        return []
    bins = [["confidence", "units", "right"], ["---"] * 3]
    bins += [
        [f"{part['confidence']:.0%}", f"{part['units']}", f"{part['right']:.0%}"]
        for part in found["reliability"]
    ]
    return [CONFIDENCE.format(**found), _table(bins)]


def _planted(found: Mapping[str, Any] | None) -> list[str]:
    if not found:
        return []
    units = found["units"]
    right = sum(unit["right"] for unit in units)
    shuffled = f"{100 * found['share_shuffled']:.1f} %"
    return [PLANTED.format(right=right, units=len(units), shuffled=shuffled)]


def _judged(text: str, found: Mapping[str, Any] | None) -> list[str]:
    if not found:
        return []
    counts = {**found.get("settings", {}), **found.get("counts", {})}
    counts["networks"] = ", ".join(counts.get("networks", ()))
    columns = found["columns"]
    lines = [["", *columns.values()], ["---"] * (len(columns) + 1)]
    named = {row["name"]: row["figures"] for row in found["rows"]}
    named["ours - no PMI"] = found["differences"]["ours - no PMI"]
    lines += [
        [name, *(_figure(figures.get(key)) for key in columns)] for name, figures in named.items()
    ]
    return [text.format(**counts), _table(lines)]


def _by_eye(found: Mapping[str, Any] | None) -> list[str]:
    """What was counted by eye and written into quality.json by hand; it is of one bundle."""
    if not found:
        return []
    units = sum(found[verdict] for verdict in ("right", "partly", "wrong"))
    return [BY_EYE.format(units=units, **found)]


def _figure(figure: Mapping[str, Any] | None) -> str:
    if figure is None or figure["value"] is None:
        return "–"
    low, high = figure.get("low"), figure.get("high")
    interval = "" if low is None else f" [{low:.3f}, {high:.3f}]"
    return f"{figure['value']:.3f}{interval}"


def _table(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
