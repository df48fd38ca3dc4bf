"""What this process may use of the machine, and what the machine is."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any


def processors() -> int:
    """Processors of the affinity mask; those of the machine where there is no mask."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def send_nothing() -> None:
    """Keep ONNX Runtime from reporting its use; to be called before it is imported.

    Its wheels for Linux write an identifier of the machine and what was run into a database in the
    user's cache folder, meant for their maker, unless this variable says no. Who has set it is
    obeyed.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def arithmetic(device: str, root: Path = Path("/proc/driver/nvidia")) -> dict[str, Any]:
    """What the last bits of a sum may depend on: the processor's instructions, for a GPU the card.

    Kernels are chosen by them. A GPU's model is known on Linux only.
    """
    import numpy as np

    found: dict[str, Any] = {
        "architecture": platform.machine(),
        "instructions": np.show_config(mode="dicts").get("SIMD Extensions", {}),
        "device": device,
    }
    if device != "cpu":
        cards = sorted(root.glob("gpus/*/information"))
        found["cards"] = [_model_line(card) for card in cards]
    return found


def _model_line(card: Path) -> str:
    """The line of a card's description that says its model; '' where there is none."""
    try:
        lines = card.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith("Model")), "")
