"""``milan-onnx convert``."""

from __future__ import annotations

from pathlib import Path

import click

from milan_onnx.cli.guard import guarded
from milan_onnx.cli.say import PATH, console


@click.command(short_help="Convert a published MILAN checkpoint to a bundle.")
@click.argument("checkpoint", type=PATH)
@click.option("--out", "-o", type=PATH, required=True, help="Folder of the bundle.")
@click.option("--legacy", is_flag=True, help="Let it repeat the quirks of the paper's code.")
@click.option(
    "--name",
    default="",
    show_default=False,
    help="Name of the bundle; by default the checkpoint's.",
)
@click.option(
    "--allow-unexpected", is_flag=True, help="Drop tensors that the settings do not call for."
)
@click.option("--overwrite", is_flag=True, help="Replace a bundle that is already there.")
@click.option("--quiet", "-q", is_flag=True, help="Say only errors.")
@guarded
def convert(
    checkpoint: Path,
    out: Path,
    legacy: bool,
    name: str,
    allow_unexpected: bool,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Convert CHECKPOINT, a captioner that MILAN's own code saved (milan-base.pth and its
    siblings), to a bundle, and print its path. Nothing in the file is run.

    Wants the extra `export`. docs/convert.md says what is read and what differs.
    """
    from milan_onnx.cli.extras import export_wing

    say = console(quiet)
    export_wing("original.convert").convert(
        checkpoint,
        out,
        legacy=legacy,
        name=name,
        allow_unexpected=allow_unexpected,
        overwrite=overwrite,
        say=say.note,
    )
    print(out)
