"""What this process may use of the machine."""

from __future__ import annotations

import os


def processors() -> int:
    """Processors of the affinity mask; those of the machine where there is no mask."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
