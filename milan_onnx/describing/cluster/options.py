"""How a job is spread over a cluster."""

from __future__ import annotations

from dataclasses import dataclass

from milan_onnx.errors import UsageError


@dataclass(frozen=True)
class ClusterOptions:
    """How a job is spread over a cluster."""

    address: str | None = None
    """Of a cluster that is there; None: one is started on this machine."""

    workers: int | None = None
    """Processes; None: one a node, or one a GPU."""

    cpus: int | None = None
    """Processors of each; None: as many as each may have."""

    gpus: float | None = None
    """GPUs of each; None: 1 where the device is one, else 0. A share where several share one."""

    def check(self) -> None:
        """Raise UsageError for what makes no sense."""
        if (self.workers is not None and self.workers < 1) or (self.cpus or 1) < 1:
            raise UsageError("a cluster has at least one worker, with at least one processor")
        if self.gpus is not None and self.gpus < 0:
            raise UsageError("a worker cannot have less than no GPU")
