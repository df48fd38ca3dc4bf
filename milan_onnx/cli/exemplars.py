"""``milan-onnx describe-exemplars``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from milan_onnx.cli.describe import ABSTAINING, RESULT, SEARCH, options
from milan_onnx.cli.guard import guarded
from milan_onnx.cli.say import PATH, PLACE, console, name_results

MACHINE = [
    click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N."),
    click.option("--threads", type=int, help="Batches in flight; by default the processors."),
]
IMAGES = [
    click.option(
        "--images",
        "-i",
        type=PLACE,
        help="The dataset that ids.csv numbers, where FOLDER holds no images.npy.",
    ),
]


@click.command("describe-exemplars", short_help="Describe units by exemplars of the paper's code.")
@click.argument("folder", type=PATH)
@options(IMAGES, RESULT, SEARCH, ABSTAINING, MACHINE)
@guarded
def describe_exemplars(folder: Path, **given: Any) -> None:
    """Describe the units whose exemplars FOLDER holds, and write a run.

    FOLDER is a layer's folder as MILAN's own code writes it (images.npy, masks.npy, ids.csv,
    activations.csv), or holds such folders; `describe --write-milan-format` writes them too.
    """
    from milan_onnx.cli.table import LabelTable
    from milan_onnx.describing import DescribeOptions, describe_folder

    say = console(given["quiet"])
    out = given["out"] or Path(f"{folder.resolve().name}-run")
    names = ("pmi_weight", "strategy", "legacy", "candidates", "device", "threads")
    more = ("abstain_below", "report", "overwrite")
    with LabelTable(say) as table:
        describe_folder(
            folder,
            out,
            images=given["images"],
            bundle=given["bundle"],
            options=DescribeOptions(
                beam_size=given["beam"], **{name: given[name] for name in (*names, *more)}
            ),
            reporter=say,
            on_label=table,
        )
    name_results(out, say, given["report"])
