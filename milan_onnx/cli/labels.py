"""``milan-onnx labels``."""

from __future__ import annotations

from pathlib import Path

import click

from milan_onnx.cli.guard import guarded
from milan_onnx.cli.say import PATH


@click.command(short_help="Write the labels of a run as csv, jsonl or parquet.")
@click.argument("run", type=PATH)
@click.option(
    "--format",
    "-f",
    "format_name",
    type=click.Choice(["csv", "jsonl", "parquet"]),
    default="csv",
    help="Csv is for spreadsheets; the others hold candidates and exemplars too.",
)
@click.option("--out", "-o", type=PATH, help="The file; by default labels.FORMAT in the run.")
@guarded
def labels(run: Path, format_name: str, out: Path | None) -> None:
    """Write the labels of RUN, a folder that describe wrote, and print the file's path."""
    from milan_onnx.labels import write_labels
    from milan_onnx.run import load_run

    found = load_run(run)
    path = out or run / f"labels.{format_name}"
    write_labels(path, found.labels, [layer.layer for layer in found.layers], format_name)
    print(path)
