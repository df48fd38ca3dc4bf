"""``milan-onnx evaluate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from milan_onnx.cli.describe import options
from milan_onnx.cli.guard import guarded
from milan_onnx.cli.say import PATH, PLACE, console

WHAT = [
    click.option("--virtual", type=PATH, help="Judge a bundle on this folder of labelled photos."),
    click.option("--units", type=PATH, help="Judge a bundle on this file of described units."),
    click.option("--truth", type=PATH, help="Judge RUN by what this file says of its units."),
]
VIRTUAL = [
    click.option("--split", help="Which photos or units: train, val, or any name they have."),
    click.option("--count", default=1000, help="Virtual units."),
    click.option("--exemplars", default=15, help="Most regions of a virtual unit."),
]
UNITS = [
    click.option("--network", help="Network of the described units; by default found out, or all."),
    click.option(
        "--least-coherence",
        default=2.0,
        help="Judge described units of this mean coherence or more, of 0 to 3.",
    ),
    click.option(
        "--nearest/--no-nearest",
        default=True,
        help="Describe by the nearest of the units to learn from too: minutes for thousands.",
    ),
    click.option("--features", type=PATH, help="Folder to keep the features of --nearest in."),
]
RUNS = [
    click.option("--photos", type=PATH, help="Photos of a --truth of units, if not beside it."),
    click.option("--kind", help="answers, classes, annotations or units; by default found out."),
    click.option(
        "--layer", "-l", "layers", multiple=True, help="Layer to judge; may be given often."
    ),
    click.option("--regions", type=PATH, help="Folder that labels RUN's photos: NetDissect's row."),
    click.option(
        "--images",
        "-i",
        type=PLACE,
        help="RUN's photos where they have moved; those of --units where they are not beside it.",
    ),
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
DESCRIBED = ("network", "least_coherence", "nearest", "features", "images")
TRUTH = ("kind", "layers", "photos", "regions", "skip_bad", "metrics", "bertscore_model")
# What each way of judging takes beside what all take; the others' would be passed over.
TAKES = {
    "--virtual": ("split", "count", "exemplars"),
    "--units": ("split", *DESCRIBED),
    "RUN --truth": (*DESCRIBED, *TRUTH),
}


@click.command(short_help="Judge a bundle on photos or described units, or a run by a truth.")
@click.argument("run", type=PATH, required=False)
@options(WHAT, VIRTUAL, UNITS, RUNS, BOTH)
@guarded
def evaluate(run: Path | None, **given: Any) -> None:
    """Judge a bundle on virtual units drawn from labelled photos (--virtual) or on real ones that
    people described (--units), or the labels of RUN, a folder that describe wrote, by what its
    units are (--truth).

    Prints figures with 95 % intervals beside those of baselines; docs/evaluate.md defines them.
    """
    way = _way(run, given)
    _check_usage(way)
    say = console(given["quiet"])
    ways = {"--virtual": _virtual, "--units": _units}
    found = _run(run, given, say) if run is not None else ways[way](given, say)
    _show(found, say, given["as_json"], given["out"])


def _way(run: Path | None, given: dict[str, Any]) -> str:
    """Which way of judging is asked for. Raises UsageError where that is not clear."""
    from milan_onnx.errors import UsageError

    ways = {"--virtual": given["virtual"], "--units": given["units"], "RUN --truth": given["truth"]}
    asked = [way for way, value in ways.items() if value is not None]
    if len(asked) != 1 or (run is None) != (asked[0] != "RUN --truth"):
        raise UsageError(
            "it is not clear what to judge",
            hint="give --virtual FOLDER --split NAME, --units FILE --split NAME, or "
            "RUN --truth FILE",
        )
    return asked[0]


def _check_usage(way: str) -> None:
    """Refuse options that this way of judging would pass over."""
    from milan_onnx.errors import UsageError

    context = click.get_current_context()
    for name in dict.fromkeys(name for names in TAKES.values() for name in names):
        given = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if given and name not in TAKES[way]:
            option = {"layers": "layer", "metrics": "metric"}.get(name, name.replace("_", "-"))
            others = " or ".join(other for other, names in TAKES.items() if name in names)
            raise UsageError(f"--{option} goes with {others} only", hint="see --help")


def _virtual(given: dict[str, Any], say: Any) -> Any:
    from milan_onnx.applications.evaluate import VirtualOptions, evaluate_virtual

    names = (*MACHINE, "count", "exemplars")
    return evaluate_virtual(
        given["virtual"],
        given["split"],
        bundle=given["bundle"],
        options=VirtualOptions(**{name: given[name] for name in names}),
        reporter=say,
    )


def _units(given: dict[str, Any], say: Any) -> Any:
    from milan_onnx.applications.evaluate import UnitsOptions, evaluate_units

    return evaluate_units(
        given["units"],
        given["split"],
        bundle=given["bundle"],
        options=UnitsOptions(**{name: given[name] for name in (*MACHINE, *DESCRIBED)}),
        reporter=say,
    )


def _run(run: Path, given: dict[str, Any], say: Any) -> Any:
    from milan_onnx.applications.evaluate import RunOptions, evaluate_run

    names = (*MACHINE, *DESCRIBED, *TRUTH, "bundle")
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
