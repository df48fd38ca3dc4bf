"""``milan-onnx merge``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from milan_onnx.cli.describe import FILES, RESULT, default_out, options
from milan_onnx.cli.guard import guarded
from milan_onnx.cli.say import PATH, PLACE, console, name_results

MOVED = [
    click.option("--model", type=PATH, help="Where the model is, if it has moved."),
    click.option("--images", "-i", type=PLACE, help="Where the photos are, if they moved."),
    click.option("--bundle", type=PATH, help="Where the captioner is, if it has moved."),
]
MACHINE = [
    click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N."),
    click.option("--threads", type=int, help="Batches in flight; by default the processors."),
]


@click.command(short_help="Make one run of the shards of a scan.")
@click.argument("shards", type=PATH, nargs=-1, required=True)
@options(RESULT, FILES, MOVED, MACHINE)
@guarded
def merge(shards: tuple[Path, ...], **given: Any) -> None:
    """Make the run of all SHARDS, the folders that `describe --shard I/N` wrote: the same bytes as
    one process would have made. Of the photos only the exemplars are read again."""
    from milan_onnx.cli.table import LabelTable
    from milan_onnx.describing import merge_shards
    from milan_onnx.describing.sharding import shard_model

    say = console(given["quiet"])
    out = given["out"] or default_out(shard_model(shards[0]), say, given["overwrite"])
    names = ("device", "threads", "report", "overwrite", "formats", "milan_format")
    more = ("write_metadata", "metadata_out")
    with LabelTable(say) as table:
        merge_shards(
            shards,
            out,
            model=given["model"],
            images=given["images"],
            bundle=given["bundle"],
            reporter=say,
            on_label=table,
            **{name: given[name] for name in (*names, *more)},
        )
    name_results(out, say, given["report"])
