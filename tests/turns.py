"""Turns of tests that run in several processes: many at once, or one alone.

The locks are on a folder and a file that are there anyway, so that nothing is left behind; the
system lets go of them when a process ends, however it ends.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

QUEUE, MACHINE = Path(__file__), Path(__file__).parent


@contextmanager
def turn(*, alone: bool, queue: Path = QUEUE, machine: Path = MACHINE) -> Iterator[None]:
    """Wait for a turn. Who waits to be alone is not overtaken by those that would join others."""
    with ExitStack() as held:
        with _locked(queue, shared=False):
            held.enter_context(_locked(machine, shared=not alone))
        yield


@contextmanager
def _locked(path: Path, *, shared: bool) -> Iterator[None]:
    import fcntl

    file = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        fcntl.flock(
            file, fcntl.LOCK_UN
        )  # forked children hold the same lock: closing is not enough
        os.close(file)
