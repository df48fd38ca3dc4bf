"""``milan-onnx evaluate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from milan_onnx.cli.describe import options
from milan_onnx.cli.guard import guarded
from milan_onnx.cli.say import PATH, PLACE, console

VIRTUAL = [
    click.option("--virtual", type=PATH, help="Judge a bundle on this folder of labelled photos."),
    click.option("--split", help="Which of its photos: train, val, or any name its regions have."),
    click.option("--units", default=1000, help="Virtual units."),
    click.option("--exemplars", default=15, help="Most regions of a virtual unit."),
]
RUNS = [
    click.option("--truth", type=PATH, help="Judge RUN by what this file says of its units."),
    click.option("--kind", help="answers, classes or annotations; by default found out."),
    click.option(
        "--layer", "-l", "layers", multiple=True, help="Layer to judge; may be given often."
    ),
    click.option("--regions", type=PATH, help="Folder that labels RUN's photos: NetDissect's row."),
    click.option("--images", "-i", type=PLACE, help="RUN's photos, where they have moved."),
    click.option(
        "--metric",
        "metrics",
        multiple=True,
        help="A text metric of the paper too: bleu, rouge or bertscore; may be given often.",
    ),
    click.option(
        "--bertscore-model", help="Model of BERTScore, a name or folder; by default roberta-large."
    ),
    click.option("--skip-bad", is_flag=True, help="Go on without the bad entries of --truth."),
]
BOTH = [
    click.option("--bundle", type=PATH, help="Captioner; by default the built-in one, or RUN's."),
    click.option(
        "--similarity/--no-similarity",
        default=None,
        help="Sentence similarity; by default where its extra is installed.",
    ),
    click.option("--seed", default=0, help="Seed of all draws."),
    click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N."),
    click.option("--threads", type=int, help="Batches in flight; by default the processors."),
    click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON."),
    click.option("--out", "-o", type=PATH, help="Write them, and what was said of each unit."),
    click.option("--quiet", "-q", is_flag=True, help="Say only errors."),
]
MACHINE = ("seed", "device", "threads", "similarity")
# Given for the other kind of judging, these would be passed over.
ONLY_VIRTUAL = {"split": None, "units": 1000, "exemplars": 15}
ONLY_RUNS = {
    "kind": None,
    "layers": (),
    "regions": None,
    "images": None,
    "skip_bad": False,
    "metrics": (),
    "bertscore_model": None,
}


@click.command(short_help="Judge a bundle on labelled photos, or a run by a truth.")
@click.argument("run", type=PATH, required=False)
@options(VIRTUAL, RUNS, BOTH)
@guarded
def evaluate(run: Path | None, **given: Any) -> None:
    """Judge a bundle on virtual units drawn from labelled photos (--virtual), or the labels of
    RUN, a folder that describe wrote, by what its units are (--truth).

    Prints figures with 95 % intervals beside those of baselines; docs/evaluate.md defines them.
    """
    _check_usage(run, given)
    say = console(given["quiet"])
    found = _virtual(given, say) if run is None else _run(run, given, say)
    _show(found, say, given["as_json"], given["out"])


def _check_usage(run: Path | None, given: dict[str, Any]) -> None:
    from milan_onnx.errors import UsageError

    if (run is None) == (given["virtual"] is None) or (run is None) != (given["truth"] is None):
        raise UsageError(
            "it is not clear what to judge",
            hint="give --virtual FOLDER --split NAME, or RUN --truth FILE",
        )
    foreign = ONLY_RUNS if run is None else ONLY_VIRTUAL
    for name, default in foreign.items():
        if given[name] != default:
            named = name.rstrip("s") if name in ("layers", "metrics") else name.replace("_", "-")
            other = "RUN --truth" if run is None else "--virtual"
            raise UsageError(f"--{named} goes with {other} only", hint="see --help")


def _virtual(given: dict[str, Any], say: Any) -> Any:
    from milan_onnx.applications.evaluate import VirtualOptions, evaluate_virtual

    names = (*MACHINE, "units", "exemplars")
    return evaluate_virtual(
        given["virtual"],
        given["split"],
        bundle=given["bundle"],
        options=VirtualOptions(**{name: given[name] for name in names}),
        reporter=say,
    )


def _run(run: Path, given: dict[str, Any], say: Any) -> Any:
    from milan_onnx.applications.evaluate import RunOptions, evaluate_run

    names = (*MACHINE, *ONLY_RUNS, "bundle")
    return evaluate_run(
        run,
        given["truth"],
        options=RunOptions(**{name: given[name] for name in names}),
        reporter=say,
    )


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
    named = [(row.name, row.figures) for row in found.rows]
    pmi = "ours - no PMI"
    named += [(pmi, found.differences[pmi])] if pmi in found.differences else []
    rows = [[name, *(_cell(figures.get(c)) for c in found.columns)] for name, figures in named]
    print_table(("descriptions", *found.columns.values()), rows)


def _cell(figure: Any) -> str:
    """``.643 [.574, .708]``, or a dash."""
    if figure is None:
        return "-"
    interval = "" if figure.low is None else f" [{_number(figure.low)}, {_number(figure.high)}]"
    return f"{_number(figure.value)}{interval}"


def _number(value: float) -> str:
    text = f"{value:.3f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 else text
