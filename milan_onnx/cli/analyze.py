"""``milan-onnx analyze``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from milan_onnx.cli.describe import options
from milan_onnx.cli.guard import guarded
from milan_onnx.cli.say import PATH, PLACE, console

IMPORTANCE = [
    click.option(
        "--images",
        "-i",
        type=PLACE,
        help="Labelled images (class folders, or a CSV of image and class): accuracy as "
        "units are ablated by what their descriptions are.",
    ),
    click.option("--model", type=PATH, help="The run's model, where it has moved."),
    click.option("--classes", type=PATH, help="Names of the outputs in order, a name a line."),
    click.option(
        "--criterion", "criteria", multiple=True, help="Rank units by this only; repeatable."
    ),
    click.option("--share", default=0.18, help="Most units ablated, as a share (paper: 0.18)."),
    click.option("--steps", default=9, help="Steps up to it (paper: 9)."),
    click.option("--seeds", default=5, help="Draws of random units (paper: 5)."),
    click.option("--each-unit", is_flag=True, help="Ablate each unit alone too: its importance."),
    click.option("--limit", type=int, help="Use only so many of the images, evenly spaced."),
    click.option("--output", help="The output that holds the classes; by default the only one."),
    click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N."),
    click.option("--threads", type=int, help="Batches in flight; by default the processors."),
]


@click.command(short_help="What kinds of thing the units of a run respond to.")
@click.argument("runs", type=PATH, nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--layer", "-l", "layers", multiple=True, help="Layer to analyse; may be given often."
)
@click.option("--kinds", type=PATH, help="Lexicon of kinds; by default the one that ships.")
@click.option("--top", default=10, help="Most words named that set a layer or run apart.")
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON.")
@click.option("--out", "-o", type=PATH, help="Write them.")
@click.option("--csv", type=PATH, help="Folder for the tables, one CSV file each.")
@click.option("--html", type=PATH, help="Write a page with plots.")
@click.option("--quiet", "-q", is_flag=True, help="Say only errors.")
@options(IMPORTANCE)
@guarded
def analyze(runs: tuple[Path, ...], **given: Any) -> None:
    """Count what kinds of thing the descriptions of RUN name (colours, textures, parts, objects,
    scenes, people, text), in what words, and which words set its layers, or several runs, apart.
    With --images, measure which of them the model needs.

    docs/analyze.md defines the figures.
    """
    from milan_onnx.applications.analyze import AnalyzeOptions, analyze_runs

    say = console(given["quiet"])
    _check_usage(runs, given)
    asked = AnalyzeOptions(given["layers"], given["kinds"], given["top"])
    found = analyze_runs(runs, asked, say)
    importance = _importance(runs[0], given, say) if given["images"] else None
    _write(found, importance, given, say)
    _show(found, importance, say, given["as_json"])


def _check_usage(runs: tuple[Path, ...], given: dict[str, Any]) -> None:
    from milan_onnx.errors import UsageError

    if given["images"] is not None and len(runs) > 1:
        raise UsageError("--images goes with one run only", hint="analyse one at a time")
    if given["images"] is None:
        named = [n for n in ("model", "classes", "criteria", "each_unit", "limit") if given[n]]
        if named:
            name = {"criteria": "criterion"}.get(named[0], named[0].replace("_", "-"))
            raise UsageError(f"--{name} goes with --images only", hint="see --help")


def _importance(path: Path, given: dict[str, Any], say: Any) -> Any:
    from dataclasses import fields

    from milan_onnx.applications.analyze import criteria
    from milan_onnx.applications.analyze.reading import Reader
    from milan_onnx.applications.importance import ImportanceOptions, measure_importance
    from milan_onnx.applications.lexicon import read_lexicon
    from milan_onnx.run import load_run

    run = load_run(path)
    reader = Reader(read_lexicon(given["kinds"]) if given["kinds"] else None)
    names = [field.name for field in fields(ImportanceOptions)]
    asked = ImportanceOptions(**{name: given[name] for name in names})
    asked.check()
    return measure_importance(run, criteria(run.labels, reader, reporter=say), asked, say)


def _json(found: Any, importance: Any) -> dict[str, Any]:
    made: dict[str, Any] = found.to_json()
    return made | ({"importance": importance.to_json()} if importance else {})


def _write(found: Any, importance: Any, given: dict[str, Any], say: Any) -> None:
    from milan_onnx.applications.analyze import write_page, write_tables
    from milan_onnx.applications.importance.showing import section, tables
    from milan_onnx.files import write_json

    if given["out"] is not None:
        write_json(given["out"], _json(found, importance))
        say.note(f"figures: {given['out']}")
    if given["csv"] is not None:
        more = tables(importance) if importance else ()
        paths = write_tables(given["csv"], found, more)
        say.note(f"tables: {given['csv']} ({', '.join(path.name for path in paths)})")
    if given["html"] is not None:
        write_page(given["html"], found, [section(importance)] if importance else [])
        say.note(f"page: {given['html'].resolve().as_uri()}")


def _show(found: Any, importance: Any, say: Any, as_json: bool) -> None:
    from milan_onnx.applications.analyze.tables import (
        cell_text,
        layers_table,
        shares_table,
        words_table,
    )
    from milan_onnx.applications.importance.showing import curves_table
    from milan_onnx.cli.table import print_table

    for note in (*found.notes, found.coverage):
        say.note(note)
    if as_json:
        text = json.dumps(_json(found, importance), indent=1, sort_keys=True, ensure_ascii=False)
        print(text)
        return
    made = [table(found) for table in (layers_table, shares_table, words_table)]
    made += [curves_table(importance)] if importance else []
    for number, table in enumerate(table for table in made if table.rows):
        if number:
            print()
        print_table(table.header, [[*map(cell_text, row)] for row in table.rows])
