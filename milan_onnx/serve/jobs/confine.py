"""What a process that opens untrusted files does to itself before it opens one.

Memory is held by ``RLIMIT_DATA``: ONNX Runtime's arenas and NumPy's arrays count, mapped libraries
and files do not, so an allocation beyond it fails inside the process, which can still say so. CUDA
needs mappings far beyond what it uses; where there is such a device only the parent's watch of the
resident memory holds it (`milan_onnx.serve.jobs.child`).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

NICE = 10
PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38
OOM_SCORE = Path("/proc/self/oom_score_adj")
NVIDIA = Path("/dev/nvidiactl")


@dataclass(frozen=True)
class Limits:
    """What a process may take."""

    memory: int
    """Bytes."""

    seconds: float
    """Wall time; the parent watches it. Processor time is held to this on every processor."""

    file_bytes: int
    """Bytes of the largest file that it may write."""


def confine(limits: Limits, parent: int) -> None:
    """Limit this process, and tie its life to ``parent``, the process id that started it.

    Ends the process where the parent is gone already.
    """
    _die_with(parent)
    _set_limits(limits)
    with contextlib.suppress(OSError):
        os.nice(NICE)
    with contextlib.suppress(OSError):  # the first to go where the machine's memory ends
        OOM_SCORE.write_text("1000")


def _die_with(parent: int) -> None:
    """Two ways: the kernel's (Linux), and a pipe from the parent on stdin, which ends with it."""
    threading.Thread(target=_end_with_stdin, name="milan-parent", daemon=True).start()
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _end_with_stdin() -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 1024):
            pass
    os._exit(1)


def _set_limits(limits: Limits) -> None:
    import resource

    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    wanted = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: limits.file_bytes,
        resource.RLIMIT_CPU: int(limits.seconds * processors) + 10,
    }
    if not NVIDIA.exists():
        wanted[resource.RLIMIT_DATA] = limits.memory
    for kind, value in wanted.items():
        _, hard = resource.getrlimit(kind)
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (most, most))
    # A file that grows beyond its limit is then an error that can be told, not a signal.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
