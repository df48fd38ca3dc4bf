"""``milan-onnx train`` and ``milan-onnx export``."""

from __future__ import annotations

from pathlib import Path

import click

from milan_onnx.cli.guard import guarded
from milan_onnx.cli.say import PATH, console


@click.command(short_help="Train a captioner and a language model by a recipe.")
@click.argument("recipe")
@click.option("--data", type=PATH, required=True, help="Folder of the training data.")
@click.option("--work", type=PATH, required=True, help="Folder for what stages leave.")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Another setting than the recipe's, such as captioner.steps=500; may be given often.",
)
@click.option("--stage", "stages", multiple=True, help="Run only this stage; may be given often.")
@click.option("--seed", default=0, help="Seed of all draws.")
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
@click.option("--threads", type=int, help="PyTorch's threads; by default PyTorch's own choice.")
@click.option("--workers", default=2, help="Batches of photos that are encoded at once.")
@click.option("--quiet", "-q", is_flag=True, help="Say only errors.")
@guarded
def train(
    recipe: str,
    data: Path,
    work: Path,
    changes: tuple[str, ...],
    stages: tuple[str, ...],
    seed: int,
    device: str,
    threads: int | None,
    workers: int,
    quiet: bool,
) -> None:
    """Train by RECIPE, a TOML file or the name of one that ships (default, milan, toy).

    What is done already is not done again: a run that was stopped goes on, to the same weights.
    `milan-onnx export` then writes the bundle. Wants the extra `export`; docs/training.md says what
    recipes hold.
    """
    from milan_onnx.cli.extras import export_wing

    export_wing("train").train(
        recipe,
        data,
        work,
        changes=changes,
        stages=stages,
        seed=seed,
        device=device,
        threads=threads,
        workers=workers,
        say=console(quiet),
    )


@click.command(short_help="Write the bundle of a finished training run.")
@click.argument("work", type=PATH)
@click.option("--out", "-o", type=PATH, required=True, help="Folder of the bundle.")
@click.option("--overwrite", is_flag=True, help="Replace a bundle that is already there.")
@click.option("--quiet", "-q", is_flag=True, help="Say only errors.")
@guarded
def export(work: Path, out: Path, overwrite: bool, quiet: bool) -> None:
    """Write the bundle of WORK, the work folder of `train`, and print its path.

    Wants the extra `export`.
    """
    from milan_onnx.cli.extras import export_wing

    export_wing("train").export(work, out, overwrite=overwrite, say=console(quiet))
    print(out)
