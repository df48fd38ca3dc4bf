"""The commands. What they need is imported when they run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from milan_onnx import __version__
from milan_onnx.cli.analyze import analyze
from milan_onnx.cli.audit import audit
from milan_onnx.cli.cache import cache
from milan_onnx.cli.calibrate import calibrate
from milan_onnx.cli.convert import convert
from milan_onnx.cli.describe import describe
from milan_onnx.cli.diff import diff
from milan_onnx.cli.edit import edit
from milan_onnx.cli.evaluate import evaluate
from milan_onnx.cli.exemplars import describe_exemplars
from milan_onnx.cli.guard import guarded
from milan_onnx.cli.labels import labels
from milan_onnx.cli.merge import merge
from milan_onnx.cli.say import PATH, PLACE, console, name_results
from milan_onnx.cli.selftest import selftest
from milan_onnx.cli.serve import serve
from milan_onnx.cli.summary import summary
from milan_onnx.cli.train import export, train

CONTEXT = {"help_option_names": ["-h", "--help"], "show_default": True}
EPILOG = (
    "Exit codes: 0 done, 1 failed, 2 usage, 3 a gate was not met, 4 this machine cannot do it, "
    "5 bad input data, 130 interrupted."
)


@click.group(epilog=EPILOG, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="milan-onnx", message="%(prog)s %(version)s")
def app() -> None:
    """Natural language descriptions of the units of a vision network, from its ONNX file."""


app.add_command(analyze)
app.add_command(audit)
app.add_command(cache)
app.add_command(calibrate)
app.add_command(convert)
app.add_command(describe)
app.add_command(describe_exemplars)
app.add_command(diff)
app.add_command(edit)
app.add_command(evaluate)
app.add_command(export)
app.add_command(labels)
app.add_command(merge)
app.add_command(selftest)
app.add_command(serve)
app.add_command(summary)
app.add_command(train)


@app.command(short_help="List the layers whose units can be described.")
@click.argument("model", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--input", "inputs", multiple=True, metavar="NAME=VALUE", help="As for describe.")
@guarded
def layers(model: Path, as_json: bool, inputs: tuple[str, ...]) -> None:
    """List the layers of MODEL, an ONNX file, whose units can be described."""
    from milan_onnx.cli.parse import parse_inputs
    from milan_onnx.cli.table import print_table
    from milan_onnx.subject import list_layers, load

    found = list_layers(load(model, fixed_inputs=parse_inputs(inputs)))
    if as_json:
        keys = ("index", "op", "tensor", "node", "module", "shape", "units")
        print(json.dumps([{key: getattr(layer, key) for key in keys} for layer in found], indent=1))
        return
    header = ("index", "op", "units", "shape", "tensor", "module", "note")
    rows = [(f.index, f.op, f.units, _shape(f.shape), f.tensor, f.module, f.note) for f in found]
    print_table(header, rows)


@app.command(short_help="Write the HTML report of a run.")
@click.argument("run", type=PATH)
@click.option("--out", "-o", type=PATH, help="The file; by default report.html in the run.")
@click.option("--images", "-i", type=PLACE, help="The photos, where they have moved since.")
@click.option("--quiet", "-q", is_flag=True, help="Say only errors.")
@guarded
def report(run: Path, out: Path | None, images: str | Path | None, quiet: bool) -> None:
    """Write the HTML report of RUN, a folder that describe wrote, and print its path."""
    from milan_onnx.reporting import write_run_report
    from milan_onnx.run import REPORT, load_run

    path = out or run / REPORT
    write_run_report(path, load_run(run), console(quiet), images=images)
    print(path)


@app.command(short_help="Describe the built-in encoder on built-in images.")
@click.option(
    "--out",
    "-o",
    type=PATH,
    default=Path("demo-run"),
    help="Folder of the run; replaced if it is there.",
)
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
@guarded
def demo(out: Path, device: str) -> None:
    """Describe two layers of the built-in encoder on the built-in images: shows that all works."""
    from milan_onnx.bundle import ENCODER, load_bundle
    from milan_onnx.cli.table import LabelTable
    from milan_onnx.describing import DescribeOptions
    from milan_onnx.describing import describe as work

    say = console(quiet=False)
    model = load_bundle().file(ENCODER)
    say.note("demo: two layers of the built-in encoder, on the built-in images")
    options = DescribeOptions(device=device, overwrite=True)
    layers = _demo_layers(model)
    with LabelTable(say) as table:
        work(model, layers, None, out, options=options, reporter=say, on_label=table)
    name_results(out, say, report=True)


@app.command(short_help="Check this installation.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@guarded
def doctor(as_json: bool) -> None:
    """Check this installation: ONNX Runtime, devices, the built-in bundle, extras.

    Ends with 4 where something is wrong.
    """
    from milan_onnx.cli.table import print_table
    from milan_onnx.doctor import examine

    findings = examine()
    if as_json:
        print(json.dumps([finding.__dict__ for finding in findings], indent=1))
    else:
        print_table(("check", "state", "found"), [(f.check, f.state, f.found) for f in findings])
    wrong = [finding for finding in findings if finding.state == "wrong"]
    for finding in wrong:
        print(f"{finding.check}: {finding.hint}", file=sys.stderr)
    if wrong:
        sys.exit(4)


@app.group()
def bundle() -> None:
    """Look at a captioner bundle."""


@bundle.command("show", short_help="Print what a bundle is.")
@click.argument("path", type=PATH, required=False)
@click.option("--card", is_flag=True, help="Print the model card instead.")
@guarded
def bundle_show(path: Path | None, card: bool) -> None:
    """Print what the bundle in folder PATH is, as JSON; without PATH the built-in one."""
    from dataclasses import asdict

    from milan_onnx.bundle import MODEL_CARD, load_bundle

    found = load_bundle(path, verify=False)
    if card:
        print(found.file(MODEL_CARD).read_text(encoding="utf-8"))
        return
    facts: dict[str, Any] = {"path": str(found.path), "sha256": found.sha256}
    print(json.dumps(facts | asdict(found.manifest), indent=2, ensure_ascii=False))


@bundle.command("verify", short_help="Check a bundle's files.")
@click.argument("path", type=PATH, required=False)
@guarded
def bundle_verify(path: Path | None) -> None:
    """Check every file of the bundle in folder PATH against its hash, and that the graphs load."""
    from milan_onnx.bundle import load_bundle, verify_files
    from milan_onnx.cli.table import print_table
    from milan_onnx.errors import BundleError
    from milan_onnx.runtime import Describer, Device

    found = load_bundle(path, verify=False)
    entries, problems = found.manifest.files, verify_files(found)
    rows = [(n, entries[n].bytes, problems[n] or "ok", entries[n].sha256) for n in sorted(entries)]
    print_table(("file", "bytes", "state", "sha256"), rows)
    damaged = [problem for problem in problems.values() if problem]
    if damaged:
        raise BundleError(
            f"bundle {found.path} is damaged: {'; '.join(damaged)}",
            hint="copy or install it again",
        )
    Describer(found, Device("cpu")).encoder()


DEMO_SIDES = (56, 14)


def _demo_layers(model: Path) -> list[str]:
    """Of the encoder, the first activation on each of two grids: one early, one in the middle."""
    from milan_onnx.subject import list_layers, load

    activations = [layer for layer in list_layers(load(model)) if layer.op in ("Clip", "Relu")]
    return [
        next(f"tensor:{a.tensor}" for a in activations if a.shape[2:] == (side, side))
        for side in DEMO_SIDES
    ]


def _shape(shape: tuple[int | str | None, ...]) -> str:
    return "x".join("?" if size is None else str(size) for size in shape)
