"""The commands."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from milan_onnx import __version__
from milan_onnx.cli.guard import guarded

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Natural language descriptions of the units of a vision network, from its ONNX file.",
    epilog="Exit codes: 0 done, 1 failed, 2 usage, 3 a gate was not met, 4 this machine cannot do "
    "it, 5 bad input data, 130 interrupted.",
)
bundle_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Look at a captioner bundle."
)
app.add_typer(bundle_app, name="bundle")

ModelArgument = Annotated[Path, typer.Argument(help="The model: an ONNX file.", show_default=False)]
RunArgument = Annotated[
    Path, typer.Argument(help="A folder that `describe --out` wrote.", show_default=False)
]
BundleOption = Annotated[
    Path | None, typer.Option(help="Captioner bundle; the built-in one by default.")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
InputOption = Annotated[
    list[str] | None,
    typer.Option("--input", metavar="NAME=VALUE", help="Value of an input that is no image."),
]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"milan-onnx {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it and end.")
    ] = False,
) -> None:
    pass


@app.command()
@guarded
def describe(
    model: ModelArgument,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            "--layer",
            "-l",
            help="Tensor, node or module name, glob, or @INDEX of `layers`; may be given often. "
            "One pass serves all. By default the deepest layer with positions.",
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            "--images",
            "-i",
            help="Photos: a folder, list file, zip or tar. By default the built-in synthetic set.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of the run; MODEL-run by default."),
    ] = None,
    bundle: BundleOption = None,
    device: DeviceOption = "auto",
    threads: Annotated[
        int | None, typer.Option(help="Batches in flight; by default the processors allowed.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Photos in a batch. Changes no result.")
    ] = None,
    exemplars: Annotated[int, typer.Option(help="Exemplars a unit (paper: 15).")] = 15,
    quantile: Annotated[
        float, typer.Option(help="Level of the activation threshold (paper: 0.99).")
    ] = 0.99,
    beam: Annotated[
        int | None, typer.Option(help="Hypotheses of the search; the bundle's by default.")
    ] = None,
    pmi_weight: Annotated[
        float | None,
        typer.Option("--lambda", help="λ of log p(d|E) - λ log p(d); the bundle's by default."),
    ] = None,
    candidates: Annotated[int, typer.Option(help="Descriptions kept a unit.")] = 5,
    limit: Annotated[
        int | None, typer.Option(help="Use only so many of the photos, evenly spaced.")
    ] = None,
    synthetic: Annotated[
        int, typer.Option(help="Images of the built-in set, without --images.")
    ] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the built-in set.")] = 0,
    resize: Annotated[
        str | None,
        typer.Option(metavar="N|HxW", help="Resize the shorter side, or exactly; 0: not at all."),
    ] = None,
    crop: Annotated[
        str | None, typer.Option(metavar="N|HxW", help="Centre crop: the model's input size.")
    ] = None,
    interpolation: Annotated[
        str | None, typer.Option(help="nearest, bilinear, bicubic or lanczos.")
    ] = None,
    mean: Annotated[
        str | None, typer.Option(metavar="R,G,B", help="Subtracted after --rescale.")
    ] = None,
    std: Annotated[
        str | None, typer.Option(metavar="R,G,B", help="Divided by after --mean.")
    ] = None,
    rescale: Annotated[
        float | None, typer.Option(help="Factor on the pixels 0..255, such as 0.00392157.")
    ] = None,
    channel_order: Annotated[str | None, typer.Option(help="RGB or BGR.")] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            help="Axes of the layers where the graph misleads: vector, tokens, sequence, "
            "channels_first or channels_last."
        ),
    ] = None,
    inputs: InputOption = None,
    tail_memory: Annotated[
        int, typer.Option(help="MiB for exact quantiles; beyond it, histograms.")
    ] = 512,
    report: Annotated[bool, typer.Option(help="Write report.html.")] = True,
    overwrite: Annotated[bool, typer.Option(help="Replace a run that is already there.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say only errors.")] = False,
) -> None:
    """Describe the units of layers of a model, and write a run."""
    from milan_onnx.cli.parse import parse_inputs, parse_layout, parse_preprocessing
    from milan_onnx.cli.table import LabelTable
    from milan_onnx.describing import describe as work
    from milan_onnx.options import DescribeOptions

    say = _console(quiet)
    options = DescribeOptions(
        exemplars=exemplars,
        quantile=quantile,
        beam_size=beam,
        pmi_weight=pmi_weight,
        candidates=candidates,
        limit=limit,
        synthetic=synthetic,
        seed=seed,
        device=device,
        threads=threads,
        batch_size=batch_size,
        tail_memory=tail_memory << 20,
        preprocessing=parse_preprocessing(
            resize, crop, interpolation, mean, std, rescale, channel_order
        ),
        layout=parse_layout(layout),
        inputs=parse_inputs(inputs or []),
        report=report,
        overwrite=overwrite,
    )
    folder = out or _default_out(model, say, overwrite)
    work(
        model,
        layer or None,
        images,
        folder,
        bundle=bundle,
        options=options,
        reporter=say,
        on_label=LabelTable(say),
    )
    _name_results(folder, say, report)


@app.command()
@guarded
def layers(
    model: ModelArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    inputs: InputOption = None,
) -> None:
    """List the layers of a model whose units can be described."""
    from milan_onnx.cli.parse import parse_inputs
    from milan_onnx.cli.table import print_table
    from milan_onnx.subject import list_layers, load

    found = list_layers(load(model, fixed_inputs=parse_inputs(inputs or [])))
    if as_json:
        keys = ("index", "op", "tensor", "node", "module", "shape", "units")
        print(
            json.dumps(
                [{k: getattr(f, k) for k in keys} | {"note": f.note} for f in found], indent=1
            )
        )
        return
    header = ("index", "op", "units", "shape", "tensor", "module", "note")
    rows = [(f.index, f.op, f.units, _shape(f.shape), f.tensor, f.module, f.note) for f in found]
    print_table(header, rows)


@app.command()
@guarded
def report(
    run: RunArgument,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The file; report.html in the run by default."),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="The photos, where they have moved since.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say only errors.")] = False,
) -> None:
    """Write the HTML report of a run."""
    from milan_onnx.reporting import write_run_report
    from milan_onnx.run import REPORT, load_run

    path = out or run / REPORT
    write_run_report(path, load_run(run), _console(quiet), images=images)
    print(path)


@app.command()
@guarded
def demo(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the run; replaced if it is there.")
    ] = Path("demo-run"),
    device: DeviceOption = "auto",
) -> None:
    """Describe units of the built-in encoder on the built-in images: shows that all works."""
    from milan_onnx.bundle import ENCODER, load_bundle
    from milan_onnx.cli.table import LabelTable
    from milan_onnx.describing import describe as work
    from milan_onnx.options import DescribeOptions

    say = _console(False)
    model = load_bundle().file(ENCODER)
    say.note(f"demo: two layers of the built-in encoder ({model.name}) on the built-in images")
    options = DescribeOptions(device=device, overwrite=True)
    work(model, DEMO_LAYERS, None, out, options=options, reporter=say, on_label=LabelTable(say))
    _name_results(out, say, True)


@app.command()
@guarded
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check this installation: ONNX Runtime, devices, the built-in bundle, extras."""
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
        raise typer.Exit(4)


@bundle_app.command("show")
@guarded
def bundle_show(
    path: Annotated[
        Path | None, typer.Argument(help="A bundle; the built-in one by default.")
    ] = None,
    card: Annotated[bool, typer.Option(help="Print the model card as well.")] = False,
) -> None:
    """Print what a bundle is, as JSON."""
    from dataclasses import asdict

    from milan_onnx.bundle import MODEL_CARD, load_bundle

    found = load_bundle(path, verify=False)
    facts: dict[str, Any] = {"path": str(found.path), "sha256": found.sha256}
    print(json.dumps(facts | asdict(found.manifest), indent=2, ensure_ascii=False))
    if card:
        print(found.file(MODEL_CARD).read_text(encoding="utf-8"))


@bundle_app.command("verify")
@guarded
def bundle_verify(
    path: Annotated[
        Path | None, typer.Argument(help="A bundle; the built-in one by default.")
    ] = None,
) -> None:
    """Check every file of a bundle against its hash, and that the graphs load."""
    from milan_onnx.bundle import load_bundle
    from milan_onnx.cli.table import print_table
    from milan_onnx.runtime import Describer, Device

    found = load_bundle(path)
    Describer(found, Device("cpu")).encoder()
    entries = found.manifest.files
    rows = [(name, entries[name].bytes, "ok", entries[name].sha256) for name in sorted(entries)]
    print_table(("file", "bytes", "state", "sha256"), rows)


DEMO_LAYERS = ["@20", "@40"]


def _console(quiet: bool) -> Any:
    from milan_onnx.progress import Console, Quiet

    return Quiet() if quiet else Console()


def _default_out(model: Path, say: Any, overwrite: bool) -> Path:
    """MODEL-run in this folder, or the next free number."""
    from milan_onnx.choice import Choice

    folder, number = Path(f"{model.stem}-run"), 1
    while folder.exists() and not overwrite:
        number += 1
        folder = Path(f"{model.stem}-run-{number}")
    say.choice("run folder", Choice(folder, "no --out"))
    return folder


def _name_results(folder: Path, say: Any, report: bool) -> None:
    say.note(f"run: {folder}")
    if report:
        say.note(f"report: {(folder / 'report.html').resolve().as_uri()}")


def _shape(shape: tuple[int | str | None, ...]) -> str:
    return "x".join("?" if size is None else str(size) for size in shape)
