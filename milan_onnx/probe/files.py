"""Probe images that lie on disk: a folder, or a text file that lists them."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from milan_onnx.errors import ProbeError
from milan_onnx.probe.base import MAX_BYTES, ProbeSet, clean_name, is_image_name, too_large
from milan_onnx.probe.decode import Unusable


class FilesProbe(ProbeSet):
    """Photos by path."""

    def __init__(self, name: str, source: str, files: Sequence[tuple[str, Path]]) -> None:
        self.name = name
        self.source = source
        self._names = [clean_name(relative) for relative, _ in files]
        self._paths = [path for _, path in files]

    @property
    def names(self) -> Sequence[str]:
        return self._names

    def read(self, index: int) -> bytes:
        path = self._paths[index]
        try:
            size = path.stat().st_size
            if size > MAX_BYTES:
                raise too_large(size)
            return path.read_bytes()
        except OSError as error:
            raise Unusable(f"cannot be read: {(error.strerror or str(error)).lower()}") from error


def open_folder(path: Path) -> FilesProbe:
    """All photos below a folder, sorted by relative POSIX path.

    Links are followed, and a real folder is visited once however many links lead to it. Raises
    ProbeError where there is no image or a folder cannot be read.
    """
    files: list[tuple[str, Path]] = []
    others = 0
    for relative, file in _walk(path):
        if is_image_name(relative):
            files.append((relative, file))
        else:
            others += 1
    if not files:
        raise ProbeError(
            f"{path} holds no images ({others} other file{'' if others == 1 else 's'})",
            hint="photos are found by suffix: jpg, png, bmp, gif, webp, tif, ppm, pgm, pbm",
        )
    return FilesProbe(f"folder {path}", str(path), sorted(files))


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


def open_list(path: Path) -> FilesProbe:
    """The photos a text file lists, one path a line, in the file's order.

    Paths are relative to the list's folder; empty lines and lines that start with # are skipped; a
    .csv has one column, with or without a heading. Raises ProbeError naming the first line whose
    file is missing.
    """
    return listed_files(path, _lines(path))


def listed_files(path: Path, lines: Iterable[tuple[int, str]]) -> FilesProbe:
    """The photos that lines (number, path) of a list name; raises ProbeError as `open_list`."""
    files = []
    for number, name in lines:
        file = path.parent / name
        what = _missing(file)
        if what:
            raise ProbeError(
                f"line {number} of {path}: {clean_name(name)[:200]} {what}",
                hint=f"paths are relative to the list's folder, {path.parent}",
            )
        files.append((name.replace("\\", "/") if os.sep == "\\" else name, file))
    if not files:
        raise ProbeError(f"the list {path} names no images", hint="write one path a line")
    return FilesProbe(f"list {path}", str(path), files)


def _missing(file: Path) -> str:
    """Why a listed path is not a file, or ''."""
    try:
        if file.is_file():
            return ""
        return "is a folder" if file.is_dir() else "does not exist"
    except OSError as error:
        return f"cannot be read ({(error.strerror or str(error)).lower()})"


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ProbeError(f"the list {path} is not UTF-8 text", hint="save it as UTF-8") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ProbeError(f"cannot read the list {path}: {reason}") from error
    is_csv = path.suffix.lower() == ".csv"
    begun = False
    for number, line in enumerate(text.splitlines(), 1):
        name = line.strip()
        if not name or name.startswith("#"):
            continue
        if is_csv:
            name = _cell(path, number, name)
            heading = not begun and not is_image_name(name) and _missing(path.parent / name)
            begun = True
            if heading:
                continue
        yield number, name


def _cell(path: Path, number: int, line: str) -> str:
    cells = next(csv.reader([line]))
    if len(cells) != 1:
        raise ProbeError(
            f"line {number} of {path} has {len(cells)} columns, not one",
            hint="give a list with one column, the paths",
        )
    return cells[0].strip()
