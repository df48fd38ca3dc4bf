"""``milan-onnx cache``, and which cache a command uses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from milan_onnx.cli.guard import guarded
from milan_onnx.cli.say import PATH

CACHE = [
    click.option(
        "--cache",
        type=PATH,
        help="Folder that keeps runs, so that none is made twice; by default the user's "
        "(`milan-onnx cache path`).",
    ),
    click.option("--no-cache", is_flag=True, help="Neither look there nor keep the run."),
    click.option(
        "--cache-size", default=2048, metavar="MIB", help="Beyond it, what was least used goes."
    ),
]
WHEN = "%Y-%m-%d %H:%M"
FOLDER = click.option("--cache", "folder", type=PATH, help="The folder; by default the user's.")


def open_cache(given: dict[str, Any], say: Any) -> Any:
    """The cache of a command's options, said; None where there is to be none.

    A folder that was asked for by name and cannot be made is an error, another one is not.
    """
    import os

    from milan_onnx.cache import OFF, Cache, choose_folder
    from milan_onnx.choice import Choice
    from milan_onnx.errors import OutputUnwritable, UsageError

    if given["no_cache"]:
        if given["cache"] is not None:
            raise UsageError("--cache and --no-cache exclude each other", hint="leave one out")
        say.choice("cache", Choice(OFF, "--no-cache"))
        return None
    if given["cache_size"] < 0:
        raise UsageError("the value of --cache-size is out of range", hint="see --help")
    folder = choose_folder(given["cache"], os.environ)
    say.choice("cache", Choice(folder.value or OFF, folder.reason))
    if folder.value is None:
        return None
    cache = Cache(folder.value, most=given["cache_size"] << 20, say=say)
    try:
        cache.make()
    except OutputUnwritable as error:
        if given["cache"] is not None:
            raise
        say.note(f"warning: no cache: {error.message}")
        return None
    return cache


@click.group()
def cache() -> None:
    """Look at the runs that are kept so that none is made twice."""


@cache.command("show", short_help="List what is kept.")
@FOLDER
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@guarded
def show(folder: Path | None, as_json: bool) -> None:
    """List what is kept, the last used first."""
    import time
    from dataclasses import asdict

    from milan_onnx.cli.table import print_table

    entries = _opened(folder).entries()
    if as_json:
        print(json.dumps([asdict(entry) for entry in entries], indent=1))
        return
    rows = [
        (e.key[:12], f"{e.bytes / 1e6:.1f}", time.strftime(WHEN, time.localtime(e.used)), e.what)
        for e in entries
    ]
    print_table(("key", "MB", "used", "what"), rows)


@cache.command("clear", short_help="Remove all that is kept.")
@FOLDER
@guarded
def clear(folder: Path | None) -> None:
    """Remove all that is kept."""
    opened = _opened(folder)
    print(f"{opened.clear()} removed from {opened.folder}")


@cache.command("path", short_help="Print the folder.")
@FOLDER
@guarded
def path(folder: Path | None) -> None:
    """Print the folder where runs are kept."""
    print(_opened(folder).folder)


def _opened(folder: Path | None) -> Any:
    import os

    from milan_onnx.cache import VARIABLE, Cache, choose_folder
    from milan_onnx.errors import UsageError

    found = choose_folder(folder, os.environ).value
    if found is None:
        raise UsageError(f"there is no cache: {VARIABLE} is off", hint="name one with --cache")
    return Cache(found)
