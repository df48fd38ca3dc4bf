"""From what the user gave to a probe set."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from milan_onnx.errors import ProbeError, UsageError
from milan_onnx.probe.archive import TarProbe, ZipProbe
from milan_onnx.probe.base import SUFFIXES, JoinedProbe, PickedProbe, ProbeSet, evenly
from milan_onnx.probe.files import open_folder, open_list
from milan_onnx.probe.synthetic import SyntheticProbe

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")

MAX_SHARDS = 10_000


def open_probe(
    source: Path | None, *, limit: int | None = None, synthetic: int = 1000, seed: int = 0
) -> ProbeSet:
    """Open probe images.

    ``source`` is a folder, a list (.txt, .lst, .csv), an archive (.zip, .tar, .tar.gz, .tar.bz2,
    .tar.xz), WebDataset shards (``photos-{0000..0012}.tar``), or None for the built-in set of
    ``synthetic`` images drawn from ``seed``. ``limit`` takes that many images, evenly spaced over
    the listing (of the built-in set the first ones, which are a fair sample).

    Raises ProbeError when there is nothing there, it cannot be read or it holds no image;
    UsageError for a limit below one.
    """
    for option, value in (("limit", limit), ("synthetic count", synthetic)):
        if value is not None and value < 1:
            raise UsageError(f"the {option} of probe images is {value}", hint="give 1 or more")
    if source is None:
        return SyntheticProbe(min(synthetic, limit or synthetic), seed)
    probe = _open_path(Path(source))
    if limit is None or limit >= len(probe):
        return probe
    return PickedProbe(probe, evenly(len(probe), limit), "evenly spaced")


def _open_path(path: Path) -> ProbeSet:
    if not _exists(path):
        shards = _shards(path)
        if shards:
            return JoinedProbe([_open_path(s) for s in shards], [s.name for s in shards], str(path))
        raise ProbeError(
            f"the probe images {path} do not exist",
            hint="give a folder, a list of paths, a zip or a tar of photos",
        )
    return open_folder(path) if path.is_dir() else _opener(path)(path)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ProbeError(f"cannot read the probe images {path}: {reason}") from error


def _opener(path: Path) -> Callable[[Path], ProbeSet]:
    name = path.name.lower()
    if name.endswith(".zip"):
        return ZipProbe
    if name.endswith(TAR_SUFFIXES):
        return TarProbe
    if name.endswith((".txt", ".lst", ".csv")):
        return open_list
    what = "is one image" if path.suffix.lower() in SUFFIXES else "is not a known kind of file"
    raise ProbeError(
        f"the probe images {path}: this {what}",
        hint="give a folder, a list of paths (.txt), a zip or a tar of photos",
    )


def _shards(path: Path) -> list[Path]:
    """The paths that one range in braces stands for; empty where there is none."""
    found = re.fullmatch(r"(.*)\{(\d+)\.\.(\d+)\}(.*)", path.name)
    if not found:
        return []
    head, first, last, tail = found.groups()
    count = int(last) - int(first) + 1
    if not 0 < count <= MAX_SHARDS:
        raise ProbeError(f"the shards {path} are {count}", hint=f"give 1 to {MAX_SHARDS}")
    numbers = range(int(first), int(last) + 1)
    return [path.with_name(f"{head}{n:0{len(first)}d}{tail}") for n in numbers]
