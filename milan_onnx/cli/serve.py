"""``milan-onnx serve``."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from milan_onnx.cli.describe import options
from milan_onnx.cli.extras import serve_wing
from milan_onnx.cli.guard import guarded
from milan_onnx.cli.say import PATH, console

TOKEN = "MILAN_ONNX_TOKEN"
MIB = 1 << 20

Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def _number(name: str, help_text: str, default: float, metavar: str | None = None) -> Decorator:
    kind = float if isinstance(default, float) else int
    return click.option(f"--{name}", type=kind, default=default, metavar=metavar, help=help_text)


PLACE = [
    click.option("--host", default="127.0.0.1", help="Address to listen on."),
    click.option("--port", default=8080, help="Port to listen on; 0: any free one."),
    click.option(
        "--store",
        type=PATH,
        default=Path("milan-onnx-store"),
        help="Folder of the service's own data.",
    ),
    click.option(
        "--allow",
        type=PATH,
        multiple=True,
        help="Folder that jobs may read models and photos from; may be given often.",
    ),
]
MACHINE = [
    click.option("--bundle", type=PATH, help="Captioner bundle; by default the built-in one."),
    click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N."),
    click.option(
        "--threads", type=int, help="Parts of a batch at once; by default the processors."
    ),
]
SAFETY = [
    click.option(
        "--token-file",
        type=PATH,
        help=f"File with the token that requests must carry; or set {TOKEN}. By default none.",
    ),
    click.option("--read-only", is_flag=True, help="Refuse jobs, uploads and deletions."),
]
BATCHING: list[Decorator] = [
    _number("queue", "Units that wait, at most.", 256),
    _number("queue-images", "Exemplars of them, at most.", 1024),
    _number("wait-ms", "Milliseconds that a batch waits for others, at most.", 5.0),
    _number("batch", "Units of a batch, at most 64.", 64),
    _number("cache", "Feature maps of images seen last; 0: none are kept.", 128, "MIB"),
    _number("timeout", "Seconds to an answer, at most.", 30.0),
]
LIMITS: list[Decorator] = [
    _number("max-body", "Longest body.", 32, "MIB"),
    _number("max-upload", "Longest upload.", 512, "MIB"),
    _number("max-pending", "Bodies in memory, all together.", 256, "MIB"),
    _number("body-seconds", "Seconds for a body to arrive.", 30.0),
    _number("max-pixels", "Pixels of an image.", 32_000_000),
    _number("max-units", "Units of a request.", 64),
    _number("max-images", "Exemplars of a request.", 960),
    _number("max-phrases", "Phrases of a request.", 64),
]
JOBS: list[Decorator] = [
    _number("max-jobs", "Jobs that run at once.", 1),
    _number("max-queued-jobs", "Jobs that wait.", 16),
    _number("job-seconds", "Seconds that a job may run.", 21600.0),
    _number("job-memory", "Memory of a job's process.", 4096, "MIB"),
    _number("max-nodes", "Nodes of a job's model.", 20_000),
]
TALK: list[Decorator] = [
    _number("grace", "Seconds that requests have to finish at the end.", 30.0),
    click.option("--access-log", is_flag=True, help="A line on stderr for each request."),
    click.option("--quiet", "-q", is_flag=True, help="Say only errors."),
]
IN_MIB = ("cache", "max_body", "max_upload", "max_pending", "job_memory")


@click.command(short_help="Describe, score and browse over HTTP.")
@options(PLACE, SAFETY, MACHINE, BATCHING, LIMITS, JOBS, TALK)
@guarded
def serve(access_log: bool, quiet: bool, token_file: Path | None, **given: Any) -> None:
    """Answer HTTP until SIGTERM or Ctrl-C: descriptions of exemplar sets and scores of phrases,
    batched across requests (docs/serve.md).

    It listens on this machine only, unless --host says otherwise. Ends with 0 when it is stopped,
    after the requests under way."""
    run = serve_wing("running").run
    settings = serve_wing("settings").ServeSettings
    say = console(quiet)
    sizes = {name: given.pop(name) * MIB for name in IN_MIB}
    token = _token(token_file)
    run(settings(token=token, **sizes, **given), say, access_log=access_log)


def _token(path: Path | None) -> str | None:
    """The token of the file, else of the environment; a command line is read by everybody."""
    from milan_onnx.errors import UsageError

    if path is None:
        return os.environ.get(TOKEN) or None
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise UsageError(f"the token file {path} cannot be read: {error}") from error
    if not text:
        raise UsageError(f"the token file {path} is empty", hint="write a token into it")
    return text
