"""``milan-onnx summary``."""

from __future__ import annotations

from pathlib import Path

import click

from milan_onnx.cli.guard import guarded
from milan_onnx.cli.say import PATH


@click.command(short_help="Print what a run found as Markdown.")
@click.argument("run", type=PATH)
@guarded
def summary(run: Path) -> None:
    """Print what RUN, a folder that describe wrote, found: a page for the summary of a CI job."""
    from milan_onnx.reporting import run_markdown
    from milan_onnx.run import load_run

    print(run_markdown(load_run(run)), end="")
