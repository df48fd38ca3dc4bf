"""``milan-onnx edit``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from milan_onnx.cli.describe import options
from milan_onnx.cli.guard import guarded
from milan_onnx.cli.say import PATH, PLACE, console

WHICH = [
    click.option("--run", type=PATH, help="The run that describes MODEL's units."),
    click.option(
        "--match",
        multiple=True,
        metavar="WORD",
        help="Units whose description says it; repeatable.",
    ),
    click.option("--look", default=1, help="Descriptions of a unit looked at, best first."),
    click.option(
        "--phrase",
        "phrases",
        multiple=True,
        metavar="WORDS",
        help="Units in which these words stand out, whatever their description says; repeatable.",
    ),
    click.option("--false-alarms", default=0.01, help="Share of other units that may stand out."),
    click.option("--probe", type=PLACE, help="The run's photos, where they have moved."),
    click.option("--bundle", type=PATH, help="The run's captioner, where it has moved."),
    click.option(
        "--units",
        multiple=True,
        metavar="LAYER:N,N-N",
        help="Units by number, or a file of LAYER,UNIT lines; repeatable.",
    ),
    click.option("--layer", "-l", "layers", multiple=True, help="Only units of this layer."),
    click.option("--set-to", type=click.Choice(["zero", "mean"]), default="zero"),
]
HOW_MANY = [
    click.option(
        "--images",
        "-i",
        type=PLACE,
        help="Labelled images (a folder of class folders, or a CSV of image and class): how many "
        "units are ablated is chosen on one part of them and judged on the other.",
    ),
    click.option(
        "--adversarial", type=PLACE, help="Labelled images on which MODEL shall become better."
    ),
    click.option("--classes", type=PATH, help="Names of the outputs in order, a name a line."),
    click.option("--limit", type=int, help="Use only so many images of each set."),
    click.option(
        "--order",
        type=click.Choice(["sorted", "greedy", "given"]),
        default="sorted",
        help="Units by what ablating each alone does; greedily; or as they come.",
    ),
    click.option("--most", default=50, help="Most units to ablate."),
    click.option(
        "--choose-on",
        type=click.Choice(["clean", "adversarial"]),
        default="clean",
        help="By --images: as many as their accuracy bears; by --adversarial: what is best there.",
    ),
    click.option("--tolerance", default=0.01, help="Accuracy that --images may lose."),
    click.option("--validation", default=0.5, help="Share of the images for choosing."),
    click.option(
        "--baselines/--no-baselines",
        default=True,
        help="Judge random units, and the same choice among all units of the layers.",
    ),
    click.option("--seeds", default=5, help="Draws of random units."),
    click.option("--seed", default=0, help="Seed of the intervals."),
    click.option("--output", help="The output that holds the classes; by default the only one."),
]
RESULT = [
    click.option("--out", "-o", type=PATH, help="The edited model; by default NAME-edited.onnx."),
    click.option("--overwrite", is_flag=True, help="Replace a file that is already there."),
    click.option("--dry-run", is_flag=True, help="Write no model."),
    click.option("--undo", is_flag=True, help="Write MODEL, an edited one, as it was before."),
    click.option("--json", "json_out", type=PATH, help="Write all figures to this file."),
    click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N."),
    click.option("--threads", type=int, help="Batches in flight; by default the processors."),
    click.option("--quiet", "-q", is_flag=True, help="Say only errors."),
]


@click.command(short_help="Ablate units of a model by what they mean.")
@click.argument("model", type=PATH)
@options(WHICH, HOW_MANY, RESULT)
@guarded
def edit(model: Path, **given: Any) -> None:
    """Ablate units of MODEL, an ONNX file, that answer a question put to its run, and write the
    edited model: same interface, same weights, the units at zero.

    Prints the units, and with --images accuracy before and after beside baselines. docs/edit.md.
    """
    say = console(given["quiet"])
    if given["undo"]:
        _undo(model, given, say)
        return
    from milan_onnx.applications.edit import edit_model
    from milan_onnx.errors import UsageError
    from milan_onnx.files import write_json

    if given["run"] is None:
        raise UsageError("it is not said what the units mean", hint="give --run, or --undo")
    out = None if given["dry_run"] else _out(model, given, "edited")
    found = edit_model(model, given["run"], out, options=_settings(given), reporter=say)
    if given["json_out"] is not None:
        write_json(given["json_out"], found.to_json())
    _show(found)
    if found.path is not None:
        say.note(f"edited model: {found.path} (--undo takes it back)")
    elif out is not None:
        raise UsageError(
            "accuracy does not bear the loss of any selected unit, so no model was written",
            hint="raise --tolerance, or leave --images out to ablate them all the same",
        )


def _undo(model: Path, given: dict[str, Any], say: Any) -> None:
    from milan_onnx.applications.edit import undo

    found = undo(model, _out(model, given, "restored"), overwrite=given["overwrite"])
    what = "the same bytes as the original" if found.same else "the original graph and weights"
    say.note(f"restored model: {found.path}, {what}")
    print(json.dumps({"path": str(found.path), "layers": found.layers, "same": found.same}))


def _out(model: Path, given: dict[str, Any], what: str) -> Path:
    return given["out"] or Path(f"{model.stem}-{what}.onnx")


def _settings(given: dict[str, Any]) -> Any:
    from dataclasses import fields

    from milan_onnx.applications.edit import EditOptions

    return EditOptions(
        **{field.name: given[field.name] for field in fields(EditOptions) if field.name in given}
    )


def _show(found: Any) -> None:
    """Units, accuracies and classes, as tables."""
    from milan_onnx.cli.table import print_table

    ablated = {item.key for item in found.ablated}
    head = ("layer", "unit", "description", "ablated", "why")
    print_table(
        head,
        [
            (*item.key, item.label.description or "-", "yes" if item.key in ablated else "no",
             item.why)
            for item in found.selected
        ],
    )  # fmt: skip
    for judged in found.judged:
        print()
        rows = [(way, _figure(figure)) for way, figure in judged.accuracy.items()]
        rows.append(("after - before", _figure(judged.gain, sign=True)))
        if judged.gain_over_random is not None:
            rows.append(("after - random", _figure(judged.gain_over_random, sign=True)))
        print_table((f"{judged.images}, {judged.tested} test images", "accuracy"), rows)
    if found.judged:
        print()
        _show_classes(found.judged[-1])


def _show_classes(judged: Any) -> None:
    from milan_onnx.cli.table import print_table

    head = (f"class ({judged.images})", "images", "before", "after")
    rows = [
        (name, count, f"{before:.3f}", f"{after:.3f}")
        for name, (count, before, after) in judged.classes.items()
    ]
    print_table(head, rows)


def _figure(figure: Any, *, sign: bool = False) -> str:
    form = "+.3f" if sign else ".3f"
    values = [format(value, form) for value in (figure.value, figure.low, figure.high)]
    return f"{values[0]} [{values[1]}, {values[2]}]"
