"""``milan-onnx evaluate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from milan_onnx.cli.guard import guarded
from milan_onnx.cli.say import PATH, console


@click.command(short_help="Judge a bundle on labelled photos.")
@click.option("--virtual", type=PATH, help="Folder of labelled photos to judge a bundle on.")
@click.option("--split", help="Which of its photos: train, val, or any name its regions have.")
@click.option("--bundle", type=PATH, help="Captioner bundle; by default the built-in one.")
@click.option("--units", default=1000, help="Virtual units.")
@click.option("--exemplars", default=15, help="Most regions of a virtual unit.")
@click.option(
    "--similarity/--no-similarity",
    default=None,
    help="Sentence similarity; by default where its extra is installed.",
)
@click.option("--seed", default=0, help="Seed of all draws.")
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
@click.option("--threads", type=int, help="Batches in flight; by default the processors.")
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON.")
@click.option("--out", "-o", type=PATH, help="Write them to a file as well.")
@click.option("--quiet", "-q", is_flag=True, help="Say only errors.")
@guarded
def evaluate(virtual: Path | None, **given: Any) -> None:
    """Judge a bundle."""
    from milan_onnx.applications.evaluate import VirtualOptions, evaluate_virtual
    from milan_onnx.errors import UsageError

    if virtual is None:
        raise UsageError("nothing to judge", hint="give --virtual FOLDER")
    say = console(given["quiet"])
    same = ("units", "exemplars", "seed", "device", "threads", "similarity")
    found = evaluate_virtual(
        virtual,
        given["split"],
        bundle=given["bundle"],
        options=VirtualOptions(**{name: given[name] for name in same}),
        reporter=say,
    )
    _show(found, say, given["as_json"], given["out"])


def _show(found: Any, say: Any, as_json: bool, out: Path | None) -> None:
    from milan_onnx.cli.table import print_table
    from milan_onnx.files import write_json

    for note in found.notes:
        say.note(note)
    if out is not None:
        write_json(out, found.to_json())
        say.note(f"figures: {out}")
    if as_json:
        print(json.dumps(found.to_json(), indent=1, sort_keys=True, ensure_ascii=False))
        return
    header = ["", *found.columns.values()]
    named = [(row.name, row.figures) for row in found.rows]
    named += [
        (name, figures) for name, figures in found.differences.items() if name == "ours - no PMI"
    ]
    print_table(header, [[name, *(_cell(f.get(c)) for c in found.columns)] for name, f in named])


def _cell(figure: Any) -> str:
    """``.62 [.58, .66]``"""
    if figure is None or figure.value != figure.value:
        return "-"
    interval = "" if figure.low is None else f" [{_number(figure.low)}, {_number(figure.high)}]"
    return f"{_number(figure.value)}{interval}"


def _number(value: float) -> str:
    text = f"{value:.3f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 else text
