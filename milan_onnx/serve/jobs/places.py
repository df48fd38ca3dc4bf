"""Which paths a client may name: those inside the allowed folders, links followed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from milan_onnx.serve.errors import Refusal

DEEPEST = 4
"""Folders below an allowed one in which models and runs are looked for."""
MOST_ENTRIES = 20_000
"""Entries that such a look may touch."""


def permitted(text: str, allow: Sequence[Path], what: str) -> Path:
    """The real path that a client named.

    A relative path is looked for in each allowed folder in turn. Raises Refusal (403) where it lies
    outside them, links followed, and (404) where nothing is there. It does not say whether there is
    anything outside.
    """
    if not allow:
        raise Refusal(
            403,
            f"no folder is allowed that the {what} could be read from",
            hint="upload it, or start the service with --allow FOLDER",
        )
    for folder in allow:
        found = _inside(text, folder)
        if found is not None and found.exists():
            return found
    if all(_inside(text, folder) is None for folder in allow):
        raise Refusal(
            403,
            f"the {what} {text} is not inside an allowed folder",
            hint=f"allowed are {', '.join(map(str, allow))}",
        )
    raise Refusal(404, f"there is no {what} {text}", hint="check the path")


def within(path: Path, folders: Sequence[Path]) -> bool:
    """Whether a path lies inside one of the folders, links followed."""
    try:
        real = path.resolve()
        return any(real.is_relative_to(folder.resolve()) for folder in folders)
    except (OSError, RuntimeError, ValueError):
        return False


def _inside(text: str, folder: Path) -> Path | None:
    """The real path of a text in a folder; None where it leads out of it."""
    try:
        root = folder.resolve()
        real = (root / text).resolve()
    except (OSError, RuntimeError, ValueError):  # too long, links in a circle, a null byte
        return None
    return real if real.is_relative_to(root) else None


def entries(allow: Sequence[Path]) -> Iterator[Path]:
    """Files and folders inside the allowed folders, in order; links are not followed."""
    budget = [MOST_ENTRIES]
    for folder in allow:
        yield from _walk(folder, DEEPEST, budget)


def _walk(folder: Path, depth: int, budget: list[int]) -> Iterator[Path]:
    try:
        with os.scandir(folder) as listing:
            found = sorted(listing, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in found:
        if entry.name.startswith(".") or budget[0] <= 0:
            continue
        budget[0] -= 1
        path = folder / entry.name
        yield path
        if depth and entry.is_dir(follow_symlinks=False):
            yield from _walk(path, depth - 1, budget)
