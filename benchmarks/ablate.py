"""What asking a model with units ablated costs: the part behind the cut alone, or whole passes.

    python -m benchmarks.ablate DATA [--limit 400] [--rounds 3] [--questions 4] [--json FILE]

EfficientNet-Lite0 with its ImageNet weights on the labelled photos of DATA/images/imagenet_sample
(class names as in benchmarks/quality.py). For layers from early to late the same questions (one
per cent of a layer's units at zero, drawn) are put in two ways: to the part behind the layer, with
what is in front of it kept (`milan_onnx.applications.ablating`), and to both parts from the decoded
frames on. The predicted classes of both ways must be equal.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.measure import Contest, ratio_text, report
from benchmarks.quality import class_names
from benchmarks.scan import lite0
from milan_onnx.applications.ablating import BATCH, Classifier, CutClassifier, filled
from milan_onnx.applications.labelled import open_labelled
from milan_onnx.probe import Loader
from milan_onnx.progress import Silent
from milan_onnx.regions import read_regions
from milan_onnx.runtime import in_order
from milan_onnx.subject import choose_preprocessing, load, resolve

SOURCE = "imagenet_sample"


def labelled_list(data: Path, path: Path) -> Path:
    """A CSV of image and class number, of the photos whose class is among the names."""
    numbers = {name: index for index, name in enumerate(class_names(data))}
    rows = [
        f"{(data / region.image).resolve()},{numbers[region.label]}"
        for region in read_regions(data)
        if f"/{SOURCE}/" in region.image and region.label in numbers
    ]
    path.write_text("\n".join(["image,class", *sorted(rows)]) + "\n")
    return path


def whole(
    cut: CutClassifier,
    frames: Sequence[np.ndarray],
    ablated: Mapping[str, Sequence[int]],
    workers: int,
) -> np.ndarray:
    """The predicted classes, every pass from the frames on."""

    def run(batch: np.ndarray) -> np.ndarray:
        scores = cut.second(cut.first(filled(batch, BATCH)), ablated)
        return scores[: len(batch)].argmax(axis=1)

    return np.concatenate([found for _, found in in_order(run, frames, workers)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--limit", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--questions", type=int, default=4)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows: list[list[str]] = []
    values: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        layers = lite0(folder / "lite0.onnx")
        subject = load(folder / "lite0.onnx")
        chosen = choose_preprocessing(subject).value
        classifier = Classifier.open(subject, chosen, Silent())
        csv = labelled_list(arguments.data, folder / "labels.csv")
        images = open_labelled(csv, classifier.classes, limit=arguments.limit)
        loader = Loader(images.probe, chosen.geometry, batch_size=BATCH)
        frames = [batch.images for batch in loader]
        for label, tensor in layers.items():
            cut = classifier.cut([resolve(subject, tensor).layer])
            add(rows, values, label, cut, frames, images, arguments)
    head = ["layer", "whole, photos/s", "behind the cut, photos/s", "times faster", "accuracy"]
    report(head, rows, values, arguments.json)


def add(
    rows: list[list[str]],
    values: list[dict[str, object]],
    label: str,
    cut: CutClassifier,
    frames: Sequence[np.ndarray],
    images: object,
    arguments: argparse.Namespace,
) -> None:
    passed = cut.passed(images)  # type: ignore[arg-type]
    layer = cut.layers[0]
    rng = np.random.default_rng(0)
    some = max(1, round((layer.units or 0) / 100))
    questions = [
        {layer.tensor: rng.permutation(layer.units or 0)[:some].tolist()}
        for _ in range(arguments.questions)
    ]
    found: dict[str, list[np.ndarray]] = {}
    timed = Contest()
    timed.run(
        {
            "whole": lambda: found.update(
                whole=[whole(cut, frames, q, cut.in_flight) for q in questions]
            ),
            "behind": lambda: found.update(behind=[passed.predicted(q) for q in questions]),
        },
        arguments.rounds,
    )
    same = all(np.array_equal(a, b) for a, b in zip(*found.values(), strict=True))
    count = len(passed.ids) * len(questions)
    speeds = [f"{count / timed.seconds(way):.0f}" for way in ("whole", "behind")]
    right = np.mean([(answer == passed.labels).mean() for answer in found["behind"]])
    state = f"{passed.accuracy():.3f}, ablated {right:.3f}, {'the same' if same else 'DIFFERENT'}"
    rows.append([label, *speeds, ratio_text(timed.ratio("whole", "behind")), state])
    values.append({"layer": label, "photos": len(passed.ids), "rounds": timed.rounds, "same": same})
    print(json.dumps(rows[-1]), flush=True)


if __name__ == "__main__":
    main()
