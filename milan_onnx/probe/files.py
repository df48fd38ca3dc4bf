"""Probe images that are files by themselves: of a folder, or listed by a text file."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from milan_onnx.errors import ProbeError
from milan_onnx.files import is_url
from milan_onnx.probe.base import ProbeSet, clean_name, is_image_name
from milan_onnx.probe.decode import Unusable
from milan_onnx.probe.remote import Store, check_address
from milan_onnx.probe.stored import LocalFile, Stored


class FilesProbe(ProbeSet):
    """Photos by path or address."""

    def __init__(self, name: str, source: str, files: Sequence[tuple[str, Stored]]) -> None:
        self.name = name
        self.source = source
        self._names = [clean_name(relative) for relative, _ in files]
        self._files = [file for _, file in files]
        self.waits = any(file.waits for file in self._files)

    @property
    def names(self) -> Sequence[str]:
        return self._names

    def read(self, index: int) -> bytes:
        try:
            return self._files[index].whole()
        except OSError as error:
            raise Unusable(f"cannot be read: {(error.strerror or str(error)).lower()}") from error


def listed_folder(path: Path) -> list[tuple[str, Stored]]:
    """All files below a folder with their relative POSIX paths, sorted by them.

    Links are followed, and a real folder is visited once however many links lead to it. Raises
    ProbeError where a folder cannot be read.
    """
    files = sorted(_walk(path))
    return [(relative, LocalFile(file)) for relative, file in files]


def open_files(what: str, files: Sequence[tuple[str, Stored]], source: str) -> FilesProbe:
    """The photos among some files. Raises ProbeError where there is none."""
    photos = [(relative, file) for relative, file in files if is_image_name(relative)]
    if not photos:
        others = len(files)
        raise ProbeError(
            f"{source} holds no images ({others} other file{'' if others == 1 else 's'})",
            hint="photos are found by suffix: jpg, png, bmp, gif, webp, tif, ppm, pgm, pbm",
        )
    return FilesProbe(f"{what} {source}", source, photos)


def _walk(root: Path) -> Iterator[tuple[str, Path]]:
    visited: set[tuple[int, int]] = set()
    # Real folders before links, so that a photo goes by its real name and not by a link's.
    pending = [("", root)]
    linked: list[tuple[str, Path]] = []
    while pending or linked:
        prefix, folder = pending.pop() if pending else linked.pop(0)
        entries, here = _entries(folder)
        if here in visited:
            continue
        visited.add(here)
        for entry in entries:
            path, relative = Path(entry.path), prefix + entry.name
            link = entry.is_symlink()
            # Of a link that leads to itself a DirEntry raises; a Path says that there is nothing.
            if path.is_dir() if link else entry.is_dir():
                if not entry.name.startswith(".") and entry.name != "__MACOSX":
                    (linked if link else pending).append((relative + "/", path))
            elif path.is_file() if link else entry.is_file():
                yield relative, path


def _entries(folder: Path) -> tuple[list[os.DirEntry[str]], tuple[int, int]]:
    """What a folder holds, by name, and which folder it is."""
    try:
        status = folder.stat()
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ProbeError(f"cannot read the folder {folder}: {reason}") from error
    return entries, (status.st_dev, status.st_ino)


def open_list(file: Stored) -> FilesProbe:
    """The photos a text file lists, a path or an address a line, in the file's order.

    Paths are relative to the list's folder; empty lines and lines that start with # are skipped; a
    .csv has one column, with or without a heading. Raises ProbeError naming the first line whose
    file is missing (of one in object storage only reading tells).
    """
    return _listed(file, _lines(file))


def listed_files(place: str | Path, lines: Iterable[tuple[int, str]]) -> FilesProbe:
    """The photos that lines (number, path) of a list name; raises ProbeError as `open_list`."""
    return _listed(_stored(place), lines)


def listed_text(place: str | Path) -> str:
    """The text of a list at a path or an address. Raises ProbeError."""
    return _text(_stored(place))


def _stored(place: str | Path) -> Stored:
    if not is_url(place):
        return LocalFile(Path(place))
    check_address(str(place))
    return Store(str(place)).file(str(place))


def _listed(source: Stored, lines: Iterable[tuple[int, str]]) -> FilesProbe:
    files: list[tuple[str, Stored]] = []
    stores: dict[tuple[str, str], Store] = {}
    for number, name in lines:
        file = _of_line(source, name, stores)
        what = file.missing()
        if what:
            raise ProbeError(
                f"line {number} of {source}: {clean_name(name)[:200]} {what}",
                hint=f"paths are relative to the list's folder, {source.beside('')}",
            )
        files.append((name.replace("\\", "/") if os.sep == "\\" else name, file))
    if not files:
        raise ProbeError(f"the list {source} names no images", hint="write one path a line")
    return FilesProbe(f"list {source}", str(source), files)


def _of_line(source: Stored, name: str, stores: dict[tuple[str, str], Store]) -> Stored:
    """The file that a line names; ``stores``: what the addresses of earlier lines were in."""
    if not is_url(name):
        return source.beside(name)
    where = check_address(name)
    if where not in stores:
        stores[where] = Store(name)
    return stores[where].file(name)


def _lines(file: Stored) -> Iterator[tuple[int, str]]:
    is_csv = file.name.lower().endswith(".csv")
    begun = False
    for number, line in enumerate(_text(file).splitlines(), 1):
        name = line.strip()
        if not name or name.startswith("#"):
            continue
        if is_csv:
            name = _cell(file, number, name)
            heading = not begun and not is_image_name(name) and _is_heading(file, name)
            begun = True
            if heading:
                continue
        yield number, name


def _is_heading(file: Stored, name: str) -> bool:
    return not is_url(name) and (file.waits or bool(file.beside(name).missing()))


def _text(file: Stored) -> str:
    """The text of a list. Raises ProbeError."""
    try:
        return file.whole().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ProbeError(f"the list {file} is not UTF-8 text", hint="save it as UTF-8") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ProbeError(f"cannot read the list {file}: {reason}") from error
    except Unusable as error:
        raise ProbeError(f"cannot read the list {file}: {error}", hint="part it") from error


def _cell(file: Stored, number: int, line: str) -> str:
    cells = next(csv.reader([line]))
    if len(cells) != 1:
        raise ProbeError(
            f"line {number} of {file} has {len(cells)} columns, not one",
            hint="give a list with one column, the paths",
        )
    return cells[0].strip()
