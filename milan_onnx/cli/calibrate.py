"""``milan-onnx calibrate``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from milan_onnx.cli.guard import guarded
from milan_onnx.cli.say import PATH, console


@click.command(short_help="Calibrate a bundle's confidences on described units.")
@click.argument("bundle", type=PATH)
@click.option("--units", type=PATH, required=True, help="Described units (units.jsonl.gz).")
@click.option("--split", default="val", help="Which of them; none may have been trained on.")
@click.option("--images", "-i", type=PATH, help="Folder of their photos; by default the file's.")
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
@click.option("--threads", type=int, help="Batches in flight; by default the processors.")
@click.option("--quiet", "-q", is_flag=True, help="Say only errors.")
@guarded
def calibrate(
    bundle: Path,
    units: Path,
    split: str,
    images: Path | None,
    device: str,
    threads: int | None,
    quiet: bool,
) -> None:
    """Fit the confidences of BUNDLE to what annotators said of units, and write them into it.

    Prints as JSON how far they can be believed, by cross-validation over layers.
    docs/confidence.md says what a confidence is.
    """
    from milan_onnx.applications.calibrate import calibrate as work

    say = console(quiet)
    found = work(bundle, units, split, images=images, device=device, threads=threads, reporter=say)
    print(json.dumps(found.figures, indent=1, sort_keys=True))
