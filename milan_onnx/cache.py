"""Results kept by the hash of everything that makes them, so that no work is done twice.

    FOLDER/KEY/entry.json     what was hashed to KEY, and the hash of every file of the content
    FOLDER/KEY/content/...    the files

KEY is the SHA-256 of facts in canonical JSON (`Key`); whoever asks for a result says the facts, and
finds it where all of them are the same. An entry appears whole (staged folder, rename), is checked
against its hashes whenever it is used, and goes when the cache is over its size and others were
used later. A cache is a help and never a need: where it cannot be read or written work goes on
without, and that is said.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from milan_onnx.choice import Choice
from milan_onnx.errors import OutputUnwritable
from milan_onnx.files import sha256_bytes, sha256_file, unwritable, write_json
from milan_onnx.progress import Reporter, Silent

FORMAT = "milan-onnx-cache"
FORMAT_VERSION = 1
ENTRY = "entry.json"
CONTENT = "content"
VARIABLE = "MILAN_ONNX_CACHE"
"""The environment variable that names the folder, or says ``off``."""
OFF = "off"
DEFAULT_BYTES = 2048 << 20
STALE_SECONDS = 24 * 3600
"""What another process has staged and not finished for so long is left over from a crash."""
SHOWN = 12
"""Digits of a key that are shown."""

_KEY = re.compile(r"[0-9a-f]{64}")
_STAGED, _RETIRED = ".partial-", ".old-"


@dataclass(frozen=True)
class Key:
    """What makes a result."""

    facts: Mapping[str, Any]
    """Everything that may change the result, as JSON values."""

    @cached_property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the facts in canonical JSON."""
        text = json.dumps(self.facts, sort_keys=True, separators=(",", ":"))
        return sha256_bytes(text.encode("ascii"))

    def __str__(self) -> str:
        return self.sha256[:SHOWN]


@dataclass(frozen=True)
class Entry:
    """A result in a cache."""

    key: str
    """Hexadecimal SHA-256."""

    what: str
    """What it is, for people."""

    bytes: int
    """Size of its files."""

    used: float
    """When it was made or last used, seconds since 1970."""


class Cache:
    """A folder of results."""

    def __init__(
        self, folder: Path, *, most: int = DEFAULT_BYTES, say: Reporter | None = None
    ) -> None:
        """``most``: bytes that all entries may take together; ``say``: where trouble is told."""
        self.folder = folder
        self.most = most
        self._say = say or Silent()

    def find(self, key: Key) -> Path | None:
        """The folder of a result's files, each checked against its hash; None where there is none.

        A damaged entry is removed, which is said.
        """
        place = self.folder / key.sha256
        try:
            if not (place / ENTRY).is_file():
                return None
            problem = _problem(place)
            if not problem:
                os.utime(place / ENTRY)
                return place / CONTENT
        except OSError as error:
            problem = (error.strerror or str(error)).lower()
        self._say.note(f"warning: the cache's entry {key} is damaged and not used: {problem}")
        _remove(place)
        return None

    def keep(self, key: Key, what: str, fill: Callable[[Path], None]) -> None:
        """Keep a result: ``fill`` writes its files into the folder that it is given.

        Where that fails, or it is larger than the whole cache may be, that is said and all goes on.
        """
        try:
            size = self._keep(key, what, fill)
        except (OSError, OutputUnwritable) as error:
            reason = error.message if isinstance(error, OutputUnwritable) else _reason(error)
            self._say.note(f"warning: not kept in the cache: {reason}")
            return
        if size > self.most:
            self._say.note(f"cache: not kept, for {_mb(size)} are more than it may hold")
            return
        self._say.note(f"cache: kept the {what.split(' ')[0]} as {key}, {_mb(size)}")
        self._trim(key.sha256)

    def _keep(self, key: Key, what: str, fill: Callable[[Path], None]) -> int:
        """The size of the result; it is there afterwards where it is not too large."""
        self.make()
        staged = Path(tempfile.mkdtemp(dir=self.folder, prefix=_STAGED))
        try:
            (staged / CONTENT).mkdir()
            fill(staged / CONTENT)
            files = _hashes(staged / CONTENT)
            size = sum(int(file["bytes"]) for file in files.values())
            entry = {"format": FORMAT, "format_version": FORMAT_VERSION, "what": what}
            write_json(staged / ENTRY, entry | {"facts": key.facts, "files": files})
            if size <= self.most:
                _publish(staged, self.folder / key.sha256)
            return size
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def make(self) -> None:
        """Make the folder, its owner's alone. Raises OutputUnwritable where that cannot be."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            tag = self.folder / "CACHEDIR.TAG"  # backups leave such folders out
            if not tag.exists():
                tag.write_text("Signature: 8a477f597d28d172789f06886806bc55\n", encoding="ascii")
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def entries(self) -> list[Entry]:
        """All results, the last used first."""
        found = [_entry(place) for place in self._places()]
        return sorted((e for e in found if e is not None), key=lambda e: (-e.used, e.key))

    def clear(self) -> int:
        """Remove all results, and what crashes have left; returns how many results there were."""
        places = self._places()
        for place in places:
            _remove(place)
        self._sweep(older_than=0)
        return len(places)

    def _places(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return [p for p in sorted(self.folder.iterdir()) if _KEY.fullmatch(p.name) and p.is_dir()]

    def _trim(self, newest: str) -> None:
        """Remove what was not used for longest until the rest fits; never the newest."""
        entries = self.entries()
        total, removed = sum(entry.bytes for entry in entries), 0
        for entry in reversed(entries):
            if total <= self.most:
                break
            if entry.key != newest:
                _remove(self.folder / entry.key)
                total, removed = total - entry.bytes, removed + 1
        if removed:
            self._say.note(
                f"cache: removed the {removed} least recently used, to hold {_mb(self.most)}"
            )
        self._sweep(older_than=STALE_SECONDS)

    def _sweep(self, older_than: float) -> None:
        if not self.folder.is_dir():
            return
        for place in self.folder.iterdir():
            left_over = place.name.startswith((_STAGED, _RETIRED))
            if left_over and time.time() - _changed(place) >= older_than:
                shutil.rmtree(place, ignore_errors=True)


def choose_folder(given: Path | None, environment: Mapping[str, str]) -> Choice[Path | None]:
    """Where results are kept, and why; None where nowhere."""
    if given is not None:
        return Choice(given, "--cache")
    named = environment.get(VARIABLE)
    if named:
        why = f"the environment's {VARIABLE}"
        return Choice(None if named == OFF else Path(named), why)
    return Choice(_users_folder(environment), "--cache sets another, --no-cache none")


def _users_folder(environment: Mapping[str, str]) -> Path | None:
    """The platform's folder for caches; None where the user has no home."""
    if sys.platform == "win32":
        base = environment.get("LOCALAPPDATA")
        return Path(base) / "milan-onnx" / "cache" if base else None
    base = environment.get("XDG_CACHE_HOME")
    if base and Path(base).is_absolute():
        return Path(base) / "milan-onnx"
    try:
        home = Path.home()
    except RuntimeError:
        return None
    caches = home / "Library" / "Caches" if sys.platform == "darwin" else home / ".cache"
    return caches / "milan-onnx"


def _hashes(content: Path) -> dict[str, dict[str, str | int]]:
    """The size and hash of every file below a folder, by its relative POSIX path."""
    files = sorted(path for path in content.rglob("*") if path.is_file())
    return {
        path.relative_to(content).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": sha256_file(path),
        }
        for path in files
    }


def _read(place: Path) -> dict[str, Any]:
    """What an entry says of itself. Raises ValueError where it is not one of this format."""
    try:
        value = json.loads((place / ENTRY).read_text(encoding="utf-8"))
        kind = (value["format"], value["format_version"])
        if kind != (FORMAT, FORMAT_VERSION):
            raise ValueError(f"{ENTRY} has the format {kind[0]} {kind[1]}")
        return dict(value)
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{ENTRY} is no entry ({error})") from error


def _problem(place: Path) -> str:
    """What is wrong with an entry; '' where it is whole."""
    try:
        entry = _read(place)
    except ValueError as error:
        return str(error)
    if Key(entry.get("facts", {})).sha256 != place.name:
        return "it is another one's"
    written, there = entry.get("files"), _hashes(place / CONTENT)
    if not isinstance(written, dict):
        return f"{ENTRY} names no files"
    changed = [n for n in sorted({*written, *there}) if written.get(n) != there.get(n)]
    return f"{changed[0]} is not as it was written" if changed else ""


def _entry(place: Path) -> Entry | None:
    """What is said of a result in a list; None where another process has just removed it."""
    try:
        used = _changed(place / ENTRY)
        size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
        return Entry(place.name, str(_read(place).get("what", "")), size, used)
    except OSError:
        return None
    except ValueError:
        return Entry(place.name, "damaged", size, used)


def _publish(staged: Path, place: Path) -> None:
    """Give an entry its name, unless another process was faster: equal keys are equal results."""
    try:
        staged.rename(place)
    except OSError:
        if not (place / ENTRY).is_file():
            raise


def _remove(place: Path) -> None:
    """Remove an entry so that nobody ever sees a part of it."""
    try:
        retired = Path(tempfile.mkdtemp(dir=place.parent, prefix=_RETIRED))
        place.rename(retired / place.name)
        shutil.rmtree(retired, ignore_errors=True)
    except OSError:
        return  # another process has removed it, or the folder may not be written


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
