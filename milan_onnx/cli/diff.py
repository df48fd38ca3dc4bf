"""``milan-onnx diff``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from milan_onnx.cli.describe import options
from milan_onnx.cli.guard import guarded
from milan_onnx.cli.say import PATH, PLACE, console

HOW = [
    click.option(
        "--match",
        type=click.Choice(["auto", "number", "activations"]),
        default="auto",
        help="Which units are the same: by number, or by correlation of their activations where "
        "they may be permuted.",
    ),
    click.option(
        "--layer",
        "-l",
        "layers",
        multiple=True,
        metavar="A[=B]",
        help="Compare layer A of the first run with B of the second; may be given often. By "
        "default all, paired by module, tensor, place.",
    ),
    click.option("--level", default=0.5, help="Correlation that makes a match by activations."),
    click.option(
        "--similarity/--no-similarity",
        default=None,
        help="Sentence similarity; by default where its extra is installed.",
    ),
    click.option("--similar", default=0.95, help="Cosine from which on other words mean the same."),
]
GATES = [
    click.option(
        "--max-changed",
        metavar="SHARE",
        help="End with 3 where more descriptions changed, were gained or lost: 2% or 0.02.",
    ),
    click.option(
        "--max-lost", metavar="SHARE", help="End with 3 where more descriptions were lost."
    ),
]
RESULT = [
    click.option("--json", "as_json", is_flag=True, help="Print everything as JSON."),
    click.option("--out", "-o", type=PATH, help="Write everything as JSON."),
    click.option("--markdown", type=PATH, help="Write tables for a pull request."),
    click.option("--html", type=PATH, help="Write one offline page, with photos."),
    click.option(
        "--images", "-i", type=PLACE, help="The photos of both runs for --html, if they have moved."
    ),
    click.option("--quiet", "-q", is_flag=True, help="Say only errors."),
]


@click.command(short_help="Compare the descriptions of two runs.")
@click.argument("run_a", type=PATH)
@click.argument("run_b", type=PATH)
@options(HOW, GATES, RESULT)
@guarded
def diff(run_a: Path, run_b: Path, **given: Any) -> None:
    """Say which units' descriptions changed from RUN_A to RUN_B, folders that describe wrote of
    two versions of a model, or of one model computed in two ways.

    Neither model is needed. Prints the units that differ; docs/diff.md defines the verdicts.
    """
    from milan_onnx.applications.diff import DiffOptions, check_gates, diff_runs
    from milan_onnx.cli.parse import parse_share
    from milan_onnx.errors import UsageError
    from milan_onnx.run import load_run

    if given["images"] is not None and given["html"] is None:
        raise UsageError("--images goes with --html only", hint="see --help")
    limits = [
        parse_share(name, given[key])
        for name, key in (("--max-changed", "max_changed"), ("--max-lost", "max_lost"))
    ]
    say = console(given["quiet"])
    names = ("match", "layers", "level", "similarity", "similar")
    settings = DiffOptions(**{name: given[name] for name in names})
    runs = load_run(run_a), load_run(run_b)
    found = diff_runs(*runs, settings, say)
    _write(runs, found, given, say)
    _show(found, say, given["as_json"])
    check_gates(found, *limits)


def _write(runs: Any, found: Any, given: dict[str, Any], say: Any) -> None:
    from milan_onnx.applications.diff.page import draw_pictures, write_page
    from milan_onnx.applications.diff.tables import markdown
    from milan_onnx.files import write_bytes, write_json

    if given["out"] is not None:
        write_json(given["out"], found.to_json())
        say.note(f"diff: {given['out']}")
    if given["markdown"] is not None:
        title = " → ".join(run["model"]["name"] for run in found.runs)
        text = markdown(found, title)
        write_bytes(given["markdown"], text.encode("utf-8", "backslashreplace"))
        say.note(f"tables: {given['markdown']}")
    if given["html"] is not None:
        size = write_page(given["html"], found, draw_pictures(runs, found, given["images"], say))
        say.note(f"page: {given['html'].resolve().as_uri()}, {size / 1e6:.1f} MB")


def _show(found: Any, say: Any, as_json: bool) -> None:
    from milan_onnx.applications.diff.tables import (
        UNIT_COLUMNS,
        differing,
        headline,
        layer_sentence,
        unit_cells,
    )
    from milan_onnx.cli.table import print_table

    if as_json:
        print(json.dumps(found.to_json(), indent=1, sort_keys=True, ensure_ascii=False))
    else:
        print_table(UNIT_COLUMNS, [unit_cells(layer, unit) for layer, unit in differing(found)])
    for note in found.notes:
        say.note(note)
    for layer in found.layers:
        say.note(layer_sentence(layer))
    say.note(headline(found))
