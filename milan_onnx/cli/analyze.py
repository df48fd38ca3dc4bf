"""``milan-onnx analyze``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from milan_onnx.cli.guard import guarded
from milan_onnx.cli.say import PATH, console


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
@guarded
def analyze(runs: tuple[Path, ...], **given: Any) -> None:
    """Count what kinds of thing the descriptions of RUN name (colours, textures, parts, objects,
    scenes, people, text), in what words, and which words set its layers, or several runs, apart.

    docs/analyze.md defines the figures.
    """
    from milan_onnx.applications.analyze import AnalyzeOptions, analyze_runs

    say = console(given["quiet"])
    options = AnalyzeOptions(given["layers"], given["kinds"], given["top"])
    found = analyze_runs(runs, options, say)
    _write(found, given, say)
    _show(found, say, given["as_json"])


def _write(found: Any, given: dict[str, Any], say: Any) -> None:
    from milan_onnx.applications.analyze import write_page, write_tables
    from milan_onnx.files import write_json

    if given["out"] is not None:
        write_json(given["out"], found.to_json())
        say.note(f"figures: {given['out']}")
    if given["csv"] is not None:
        say.note(f"tables: {', '.join(map(str, write_tables(given['csv'], found)))}")
    if given["html"] is not None:
        write_page(given["html"], found)
        say.note(f"page: {given['html'].resolve().as_uri()}")


def _show(found: Any, say: Any, as_json: bool) -> None:
    from milan_onnx.applications.analyze.tables import layers_table, shares_table, words_table
    from milan_onnx.cli.table import print_table

    for note in (*found.notes, found.coverage):
        say.note(note)
    if as_json:
        print(json.dumps(found.to_json(), indent=1, sort_keys=True, ensure_ascii=False))
        return
    for number, table in enumerate((layers_table, shares_table, words_table)):
        made = table(found)
        if made.rows:
            if number:
                print()
            print_table(made.header, made.rows)
