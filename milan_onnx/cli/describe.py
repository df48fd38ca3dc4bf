"""``milan-onnx describe``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from milan_onnx.cli.baseline import BASELINE, read_baseline
from milan_onnx.cli.cache import CACHE, open_cache
from milan_onnx.cli.cache import cache as cache_commands
from milan_onnx.cli.guard import guarded
from milan_onnx.cli.say import PATH, PLACE, console, name_results

Decorator = Callable[[Callable[..., None]], Callable[..., None]]

EXEMPLARS = [
    click.option("--exemplars", default=15, help="Exemplars a unit (paper: 15)."),
    click.option("--quantile", default=0.99, help="Level of the threshold (paper: 0.99)."),
    click.option(
        "--tail-memory",
        default=512,
        metavar="MIB",
        help="Memory for exact quantiles; beyond it, histograms.",
    ),
]
SEARCH = [
    click.option("--bundle", type=PATH, help="Captioner bundle; by default the built-in one."),
    click.option("--beam", type=int, help="Hypotheses of the search; by default the bundle's."),
    click.option(
        "--lambda",
        "pmi_weight",
        type=float,
        help="λ of log p(d|E) - λ log p(d); by default the bundle's.",
    ),
    click.option(
        "--strategy",
        type=click.Choice(["consensus", "rerank", "beam", "greedy"]),
        help="Beam search and then agreement or PMI, beam search alone, or greedy; by default the "
        "bundle's.",
    ),
    click.option(
        "--legacy/--no-legacy",
        default=None,
        show_default=False,
        help="Repeat the quirks of the paper's code; by default as the bundle says.",
    ),
    click.option("--candidates", default=5, help="Descriptions kept a unit."),
]
PHOTOS = [
    click.option(
        "--images",
        "-i",
        type=PLACE,
        help="Folder, list file, zip, tar or parquet file of photos, or its address (s3://...); "
        "by default the built-in synthetic set.",
    ),
    click.option("--limit", type=int, help="Use only so many of them, evenly spaced."),
    click.option("--synthetic", default=1000, help="Images of the built-in set."),
    click.option("--seed", default=0, help="Seed of the built-in set."),
]
GENERATOR = [
    click.option(
        "--latents", type=PATH, help="MODEL is a generator: .npy of its latents, a row an image."
    ),
    click.option("--classes", type=PATH, help="Their classes, .npy of numbers or one-hot rows."),
    click.option("--image-output", help="Tensor of the images; by default the only such output."),
    click.option(
        "--image-range", metavar="LOW,HIGH", help="Black and white there: -1,1 or 0,1 or 0,255."
    ),
]
ABSTAINING = [
    click.option(
        "--abstain-below",
        type=float,
        metavar="P",
        help="A label of less confidence than this (0 to 1) abstains; by default 0.25. Where the "
        "bundle has no calibration, validity decides.",
    ),
]
VALIDITY = [
    click.option(
        "--validity/--no-validity",
        default=None,
        show_default=False,
        help="Hold half of the photos out and test each label on them; by default where there "
        "are enough photos.",
    ),
    click.option(
        "--validity-level",
        default=0.2,
        help="Share of shuffled labels that may pass; a label without a confidence that does no "
        "better abstains.",
    ),
]
PREPROCESSING = [
    click.option("--resize", metavar="N|HxW", help="Shorter side, or exactly; 0: no resize."),
    click.option("--crop", metavar="N|HxW", help="Centre crop: the size of the model's input."),
    click.option("--interpolation", help="nearest, bilinear, bicubic or lanczos."),
    click.option("--rescale", type=float, help="Factor on pixels 0..255, such as 0.00392157."),
    click.option("--mean", metavar="R,G,B", help="Subtracted after --rescale."),
    click.option("--std", metavar="R,G,B", help="Divided by after --mean."),
    click.option("--channel-order", help="RGB or BGR."),
    click.option(
        "--layout",
        help="Axes of the layers where the graph misleads: vector, tokens, sequence, "
        "channels_first or channels_last.",
    ),
    click.option(
        "--input",
        "inputs",
        multiple=True,
        metavar="NAME=VALUE",
        help="Value of an input that is no image; may be given often.",
    ),
]
MACHINE = [
    click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N."),
    click.option("--threads", type=int, help="Batches in flight; by default the processors."),
    click.option("--batch-size", type=int, help="Photos in a batch. Changes no result."),
    click.option(
        "--reduce",
        type=click.Choice(["auto", "host", "device"]),
        default="auto",
        help="Where activations are searched; auto: on the GPU where one runs the model.",
    ),
]
ENGINE = [
    click.option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        default="local",
        help="This process, or the workers of a Ray cluster. Changes no result.",
    ),
    click.option("--ray-address", help="The cluster; by default one on this machine."),
    click.option("--workers", type=int, help="Its processes; by default one a node, or a GPU."),
    click.option("--worker-cpus", type=int, help="Processors of each; by default all, shared out."),
    click.option("--worker-gpus", type=float, help="GPUs of each, or a share of one."),
]
RESULT = [
    click.option("--out", "-o", type=PATH, help="Folder of the run; by default NAME-run."),
    click.option("--overwrite", is_flag=True, help="Replace a run that is already there."),
    click.option("--report/--no-report", default=True, help="Write report.html."),
    click.option("--quiet", "-q", is_flag=True, help="Say only errors."),
]


def options(*groups: Sequence[Decorator]) -> Decorator:
    """Add groups of options to a command, in the order of --help."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed([option for group in groups for option in group]):
            command = option(command)
        return command

    return add


FILES = [
    click.option(
        "--format",
        "formats",
        multiple=True,
        type=click.Choice(["csv", "jsonl", "parquet"]),
        help="Write the labels in this format too; labels.jsonl is always there. May be given "
        "often.",
    ),
    click.option(
        "--write-metadata",
        is_flag=True,
        help="Write a copy of MODEL that holds the labels in its metadata: RUN/labelled.onnx.",
    ),
    click.option("--metadata-out", type=PATH, help="Another place for that copy."),
    click.option(
        "--write-milan-format",
        "milan_format",
        is_flag=True,
        help="Write the exemplars for the paper's code too: RUN/milan, 3 MB a unit.",
    ),
]
LAYERS = [
    click.option(
        "--layer",
        "-l",
        "layers",
        multiple=True,
        help="Tensor, node or module name, glob, or @INDEX of `layers`; may be given often, one "
        "pass serves all. By default the deepest layer with positions.",
    ),
]
JOB = [
    click.option(
        "--job",
        type=PATH,
        help="TOML file of several models, described one after another; other options win over "
        "what it says (docs/batch.md).",
    ),
]
SHARD = [
    click.option(
        "--shard",
        metavar="I/N",
        help="Scan only the I-th of N parts of the photos and write its statistics to --out; "
        "`milan-onnx merge` makes one run of all parts.",
    ),
]
MAKING = (LAYERS, PHOTOS, GENERATOR)
SETTINGS = (CACHE, EXEMPLARS, SEARCH, ABSTAINING, VALIDITY, PREPROCESSING, MACHINE, ENGINE)


@click.command(short_help="Describe the units of layers of a model.")
@click.argument("model", type=PATH, required=False)
@options(*MAKING, JOB, SHARD, RESULT, FILES, BASELINE, *SETTINGS)
@click.pass_context
@guarded
def describe(context: click.Context, /, model: Path | None, job: Path | None, **given: Any) -> None:
    """Describe the units of layers of MODEL, an ONNX file, and write a run; or do so for each
    model of a --job."""
    from milan_onnx.cli.table import LabelTable
    from milan_onnx.errors import UsageError

    if (model is None) == (job is None):
        what = "no model is given" if model is None else "--job names the models itself"
        raise UsageError(what, hint="give MODEL, or --job FILE")
    say = console(given["quiet"])
    if given["shard"] is not None:
        scan_part_of(model, given, say)
    elif job is not None:
        from milan_onnx.cli.jobs import describe_job

        describe_job(job, context, say)
    elif model is not None:
        before = read_baseline(given)
        with LabelTable(say) as table:
            run = describe_model(model, given, say, open_cache(given, say), table)
        before.compare(run.path, say)


def describe_model(
    model: Path, given: dict[str, Any], say: Any, cache: Any, on_label: Callable[[Any], None]
) -> Any:
    """Describe one model as the command's options say; returns the run."""
    from milan_onnx.describing import describe as work

    wanted = settings(given)
    out = given["out"] or default_out(model, say, given["overwrite"])
    run = work(
        model,
        list(given["layers"]) or None,
        given["images"],
        out,
        bundle=given["bundle"],
        options=wanted,
        reporter=say,
        on_label=on_label,
        cache=cache,
        cluster=cluster_options(given),
    )
    name_results(out, say, given["report"])
    if given["write_metadata"]:
        say.note(f"model with labels: {given['metadata_out'] or out / 'labelled.onnx'}")
    return run


def scan_part_of(model: Path | None, given: dict[str, Any], say: Any) -> None:
    """`describe --shard`."""
    from milan_onnx.cli.parse import parse_shard
    from milan_onnx.describing import scan_shard
    from milan_onnx.errors import UsageError

    shard = parse_shard(given["shard"])
    if model is None:
        raise UsageError("--shard goes with one MODEL, not with --job", hint="give MODEL")
    for name in ("formats", "milan_format", "write_metadata", "baseline"):
        if given.get(name):
            option = name.replace("formats", "format").replace("_", "-")
            raise UsageError(f"a shard has no labels for --{option}", hint="give it to `merge`")
    out = given["out"] or Path(f"{model.stem}-shard-{shard.number}-of-{shard.of}")
    scan_shard(
        shard,
        model,
        list(given["layers"]) or None,
        given["images"],
        out,
        bundle=given["bundle"],
        options=settings(given),
        reporter=say,
    )
    print(out)


@cache_commands.command("key", short_help="Print what a run would be kept as.")
@click.argument("model", type=PATH)
@options(*MAKING, RESULT, FILES, BASELINE, *SETTINGS)
@guarded
def cache_key(model: Path, **given: Any) -> None:
    """Print the key of the run that `describe` would make of MODEL with the same options: it is
    another one wherever anything differs that may change the result. Options that change nothing
    are taken too."""
    from milan_onnx.describing import run_key

    images, layers = given["images"], list(given["layers"]) or None
    wanted = settings(given)
    print(run_key(model, layers, images, bundle=given["bundle"], options=wanted).sha256)


def settings(given: dict[str, Any]) -> Any:
    """The `DescribeOptions` of the command's options."""
    from milan_onnx.cli.parse import parse_inputs, parse_layout, parse_preprocessing
    from milan_onnx.describing import DescribeOptions

    preprocessing = ("resize", "crop", "interpolation", "mean", "std", "rescale", "channel_order")
    same = (
        "exemplars",
        "quantile",
        "pmi_weight",
        "strategy",
        "legacy",
        "candidates",
        "latents",
        "classes",
        "image_output",
        "image_range",
        "validity",
        "validity_level",
        "abstain_below",
        "limit",
        "synthetic",
        "seed",
        "device",
        "threads",
        "batch_size",
        "reduce",
        "formats",
        "write_metadata",
        "metadata_out",
        "milan_format",
        "report",
        "overwrite",
    )
    return DescribeOptions(
        beam_size=given["beam"],
        tail_memory=given["tail_memory"] << 20,
        preprocessing=parse_preprocessing(*(given[name] for name in preprocessing)),
        layout=parse_layout(given["layout"]),
        inputs=parse_inputs(given["inputs"]),
        **{name: given[name] for name in same},
    )


def cluster_options(given: dict[str, Any]) -> Any:
    """The `ClusterOptions` of the command's options; None: this process does the work."""
    from milan_onnx.describing import ClusterOptions
    from milan_onnx.errors import UsageError

    names = ("ray_address", "workers", "worker_cpus", "worker_gpus")
    if given["engine"] == "ray":
        return ClusterOptions(*(given[name] for name in names))
    for name in names:
        if given[name] is not None:
            raise UsageError(f"--{name.replace('_', '-')} goes with --engine ray", hint="add it")
    return None


def default_out(model: Path, say: Any, overwrite: bool) -> Path:
    """MODEL-run in this folder, or the next free number."""
    from milan_onnx.choice import Choice

    folder, number = Path(f"{model.stem}-run"), 1
    while folder.exists() and not overwrite:
        number += 1
        folder = Path(f"{model.stem}-run-{number}")
    say.choice("run folder", Choice(folder, "no --out"))
    return folder
