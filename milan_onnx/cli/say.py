"""What commands share: the path type, where they talk, how they name results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)


class _Place(click.Path):
    """A path, or the address of photos in object storage, which a Path would spoil."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from milan_onnx.files import is_url

        return value if is_url(value) else super().convert(value, param, ctx)


PLACE = _Place(path_type=Path)


def console(quiet: bool) -> Any:
    """Where a command says what it does: stderr, or nowhere."""
    from milan_onnx.progress import Console, Quiet

    return Quiet() if quiet else Console()


def name_results(folder: Path, say: Any, report: bool) -> None:
    """Say where the run and its report are."""
    say.note(f"run: {folder}")
    if report:
        say.note(f"report: {(folder / 'report.html').resolve().as_uri()}")
