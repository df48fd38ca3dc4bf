"""A folder in the making: `.NAME.partial` beside it, which belongs to one process at a time.

What a job has done so far stays there when it is stopped, by whatever: the next process that is
asked for the same goes on from it. The system frees the lock of a process that is gone.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from milan_onnx.errors import FolderBusy
from milan_onnx.files import check_kind, check_replaceable, publish, real_place, unwritable

try:
    import fcntl
except ImportError:  # not on Windows: folders are not guarded there
    fcntl = None  # type: ignore[assignment]

OWNER = "owner"
WORK = "work"
MADE = "made"
KEPT = (".npz", ".json", ".jsonl")
"""Files that are there only when something is kept; others may be still empty."""


@dataclass
class Making:
    """A folder that this process makes."""

    out: Path
    """Where it will be."""

    place: Path
    """What belongs to this process until then."""

    overwrite: bool
    """Whether it may replace one that is already there."""

    marker: str
    """The file that tells such a folder from any other."""

    what: str
    """What such a folder is, for people."""

    done: bool = field(default=False, init=False)
    """Whether nothing is left to do, so that nothing of the work need stay."""

    @property
    def work(self) -> Path:
        """Where the work is kept. Raises OutputUnwritable where it cannot be made."""
        place = self.place / WORK
        try:
            place.mkdir(exist_ok=True)
        except OSError as error:
            raise unwritable(self.out, error) from error
        return place

    @property
    def facts(self) -> Path:
        """The file that says what is made here."""
        return self.place / "job.json"

    @property
    def holds_work(self) -> bool:
        """Whether a process that was stopped left work here, or this one has kept some."""
        files = (path for path in (self.place / WORK).rglob("*") if path.suffix in KEPT)
        return any(path.stat().st_size for path in files)

    def discard(self) -> None:
        """Forget what was done."""
        shutil.rmtree(self.place / WORK, ignore_errors=True)

    def check_free(self) -> None:
        """Raise UsageError where something is there that may not be replaced."""
        check_replaceable(self.out, self.overwrite, self.marker, self.what)

    @contextmanager
    def whole(self) -> Iterator[Path]:
        """An empty folder that takes the name when the block ends well.

        Raises UsageError where something has come there meanwhile that may not be replaced,
        OutputUnwritable where it cannot be written.
        """
        made = self.place / MADE
        try:
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir()
        except OSError as error:
            raise unwritable(self.out, error) from error
        yield made
        self.check_free()
        publish(made, self.out)
        self.done = True


@contextmanager
def making(out: Path, *, overwrite: bool, marker: str, what: str = "run") -> Iterator[Making]:
    """Own the making of a folder while the block runs.

    When it ends, what is beside the folder goes, unless the block failed and left work behind.
    Raises FolderBusy naming the process that makes it, UsageError where something else is there,
    OutputUnwritable where nothing can be written. A link is followed.
    """
    out = real_place(out, what)
    check_kind(out, marker, what)
    place = out.with_name(f".{out.name}.partial")
    lock = _own(place, out)
    made = Making(out, place, overwrite, marker, what)
    try:
        yield made
    finally:
        shutil.rmtree(place / MADE, ignore_errors=True)
        if made.done or not made.holds_work:
            shutil.rmtree(place, ignore_errors=True)
        os.close(lock)


def _own(place: Path, out: Path) -> int:
    """An open file that locks the place until it is closed."""
    try:
        while True:
            place.mkdir(parents=True, exist_ok=True)
            lock = _opened(place / OWNER)
            if lock is None:
                continue  # its owner has just ended, and removed the place
            if not _locked(lock):
                owner = os.read(lock, 200).decode(errors="replace").strip() or "another process"
                os.close(lock)
                raise FolderBusy(
                    f"{out} is being made by {owner}",
                    hint="wait for it, stop it, or give another --out",
                )
            if _same(lock, place / OWNER):
                break
            os.close(lock)
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    except OSError as error:
        raise unwritable(out, error) from error
    return lock


def _opened(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except FileNotFoundError:
        return None


def _locked(lock: int) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _same(lock: int, path: Path) -> bool:
    """Whether the locked file is the one that is there."""
    try:
        return os.path.samestat(os.fstat(lock), path.stat())
    except FileNotFoundError:
        return False
