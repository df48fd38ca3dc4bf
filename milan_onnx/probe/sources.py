"""From what the user gave to a probe set."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain, islice
from pathlib import Path
from urllib.parse import urlsplit

from milan_onnx.errors import ProbeError, UsageError
from milan_onnx.files import is_url
from milan_onnx.probe.archive import TarProbe, ZipProbe
from milan_onnx.probe.base import (
    ENDINGS,
    JoinedProbe,
    PickedProbe,
    ProbeSet,
    evenly,
    is_image_name,
)
from milan_onnx.probe.files import listed_folder, open_files, open_list
from milan_onnx.probe.parquet import ParquetProbe
from milan_onnx.probe.remote import Store, check_address
from milan_onnx.probe.stored import LocalFile, Stored
from milan_onnx.probe.synthetic import SyntheticProbe

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")

OPENERS: tuple[tuple[tuple[str, ...], Callable[[Stored], ProbeSet]], ...] = (
    ((".zip",), ZipProbe),
    (TAR_SUFFIXES, TarProbe),
    ((".txt", ".lst", ".csv"), open_list),
)

FILES = (".parquet", *chain.from_iterable(suffixes for suffixes, _ in OPENERS), *ENDINGS)
"""How addresses end that are no folders."""

MAX_SHARDS = 10_000
SHARDS_AT_ONCE = 16


def open_probe(
    source: str | Path | None, *, limit: int | None = None, synthetic: int = 1000, seed: int = 0
) -> ProbeSet:
    """Open probe images.

    ``source`` is a folder, a list (.txt, .lst, .csv), an archive (.zip, .tar, .tar.gz, .tar.bz2,
    .tar.xz), a parquet file (or a folder of such), several of these (``photos-{0000..0012}.tar``,
    ``{a,b}.tar``, ``a.tar::b.tar``), any of these in object storage (``s3://bucket/photos/``, a
    text, not a Path), or None for the built-in set of ``synthetic`` images drawn from ``seed``.
    ``limit`` takes that many images, evenly spaced over the listing (of the built-in set the first
    ones, which are a fair sample).

    Raises ProbeError when there is nothing there, it cannot be read or it holds no image;
    UsageError for a limit below one; ExtraMissing where a package for it is not installed.
    """
    for option, value in (("limit", limit), ("synthetic count", synthetic)):
        if value is not None and value < 1:
            raise UsageError(f"the {option} of probe images is {value}", hint="give 1 or more")
    if source is None:
        return SyntheticProbe(min(synthetic, limit or synthetic), seed)
    probe = _open(source)
    if limit is None or limit >= len(probe):
        return probe
    return PickedProbe(probe, evenly(len(probe), limit), "evenly spaced")


def absent(source: str | Path) -> bool:
    """Whether nothing is at a path that a run recorded; of an address only opening it tells."""
    text = str(source)
    if is_url(text) or _exists(Path(text)) or expand(text) != [text]:
        return False
    return not _exists(Path(_column(text)[0]))


def expand(text: str) -> list[str]:
    """What a text stands for: parts between ``::``, ranges ``{00..12}`` and lists ``{a,b}``.

    Raises ProbeError for an empty range, or more than `MAX_SHARDS`.
    """
    found = list(islice(_expanded(text), MAX_SHARDS + 1))
    if len(found) > MAX_SHARDS:
        raise ProbeError(f"the shards {text} are too many", hint=f"give 1 to {MAX_SHARDS}")
    if "" in found:
        raise ProbeError(f"the shards {text} have an empty part", hint="take it out")
    return found


def _expanded(text: str) -> Iterator[str]:
    for part in text.split("::"):
        yield from _unbraced(part)


def _unbraced(text: str) -> Iterator[str]:
    found = re.search(r"\{(\d+\.\.\d+|[^{}]*,[^{}]*)\}", text)
    if not found:
        yield text
        return
    for choice in _choices(found[1], text):
        for rest in _unbraced(text[found.end() :]):
            yield f"{text[: found.start()]}{choice}{rest}"


def _choices(inside: str, text: str) -> Iterable[str]:
    first, dots, last = inside.partition("..")
    if not (dots and first.isdecimal() and last.isdecimal()):
        return inside.split(",")
    count = int(last) - int(first) + 1
    if not 0 < count <= MAX_SHARDS:
        raise ProbeError(f"the shards {text} are {count}", hint=f"give 1 to {MAX_SHARDS}")
    return (f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1))


def _open(source: str | Path, within: str = "") -> ProbeSet:
    """A source; ``within``: what goes before the names where it is one of several."""
    if not is_url(source) and _exists(Path(source)):
        return _open_here(Path(source), within)
    text = str(source)
    shards = expand(text)
    if shards != [text]:
        return _joined(shards, text)
    place, column = _column(text)
    if is_url(place):
        return _open_address(place, column, within)
    if column is not None and _exists(Path(place)):
        return _open_file(LocalFile(Path(place)), column, within)
    hint = "give a folder, a list of paths, a zip, a tar or a parquet file of photos"
    if re.match(r"[a-z][a-z0-9+.-]+:/[^/]", text):
        hint = "give an address as text, with two slashes, and not as a Path"
    raise ProbeError(f"the probe images {source} do not exist", hint=hint)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # so are many shards
            return False
        reason = (error.strerror or str(error)).lower()
        raise ProbeError(f"cannot read the probe images {path}: {reason}") from error


def _column(text: str) -> tuple[str, str | None]:
    """A parquet file and the column of it that was asked for (``photos.parquet#jpg``)."""
    found = re.fullmatch(r"(.+\.parquet)#([^/#]+)", text)
    return (found[1], found[2]) if found else (text, None)


def _open_here(path: Path, within: str) -> ProbeSet:
    if path.is_dir():
        return _open_files(listed_folder(path), str(path))
    return _open_file(LocalFile(path), None, within)


def _open_address(url: str, column: str | None, within: str) -> ProbeSet:
    if url.lower().startswith("file://"):
        from urllib.request import url2pathname  # brings all of http with it

        return _open(url2pathname(urlsplit(url).path) + (f"#{column}" if column else ""), within)
    check_address(url)
    store = Store(url)
    file = store.file(url)
    if column is not None or (file.name.lower().endswith(FILES) and not url.endswith("/")):
        return _open_file(file, column, within)
    return _open_files(store.below(url), url)


def _open_file(file: Stored, column: str | None, within: str) -> ProbeSet:
    lower = file.name.lower()
    if lower.endswith(".parquet"):
        return ParquetProbe(file, column, within=within)
    for suffixes, opener in OPENERS:
        if lower.endswith(suffixes):
            return opener(file)
    what = "is one image" if lower.endswith(ENDINGS) else "is not a known kind of file"
    raise ProbeError(
        f"the probe images {file}: this {what}",
        hint="give a folder, a list of paths (.txt), a zip, a tar or a parquet file of photos",
    )


def _open_files(files: Sequence[tuple[str, Stored]], source: str) -> ProbeSet:
    """The photos of a folder, or those in its parquet files where it holds no others."""
    tables = [(name, file) for name, file in files if _is_table(name)]
    if not tables or any(is_image_name(name) for name, _ in files):
        return open_files("folder", files, source)
    parts = _opened([partial(ParquetProbe, file, within=name) for name, file in tables])
    return _join(parts, [name for name, _ in tables], source)


def _is_table(name: str) -> bool:
    hidden = any(part.startswith((".", "_")) for part in name.split("/"))
    return name.lower().endswith(".parquet") and not hidden


def _joined(shards: Sequence[str], source: str) -> ProbeSet:
    """Several sources one after another."""
    prefixes = _prefixes(shards)
    parts = _opened([partial(_open, *pair) for pair in zip(shards, prefixes, strict=True)])
    return _join(parts, prefixes, source)


def _join(parts: Sequence[ProbeSet], prefixes: Sequence[str], source: str) -> JoinedProbe:
    """Sets one after another; the names of a table's rows say already where they are from."""
    pairs = zip(parts, prefixes, strict=True)
    named = ["" if isinstance(part, ParquetProbe) else prefix for part, prefix in pairs]
    joined = JoinedProbe(parts, named, source)
    columns = sorted({part.column for part in parts if isinstance(part, ParquetProbe)})
    if columns:
        joined.name += f", column{'s' if len(columns) > 1 else ''} {', '.join(columns)}"
    return joined


def _prefixes(shards: Sequence[str]) -> list[str]:
    """What goes before the names of each: its last component, or more where that is not unique."""
    paths = [_column(shard)[0].rstrip("/").split("/") for shard in shards]
    for depth in range(1, max(map(len, paths))):
        short = ["/".join(path[-depth:]) for path in paths]
        if len(set(short)) == len(paths):
            return short
    return ["/".join(path) for path in paths]


def _opened(openers: Sequence[Callable[[], ProbeSet]]) -> list[ProbeSet]:
    """What they open, in their order, side by side; the first error ends it."""
    with ThreadPoolExecutor(SHARDS_AT_ONCE, thread_name_prefix="milan-open") as pool:
        try:
            return list(pool.map(lambda opener: opener(), openers))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
