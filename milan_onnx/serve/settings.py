"""What a service is started with: where it listens, what it may read, and how much it takes."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path

from milan_onnx.errors import UsageError

MIB = 1 << 20
LARGEST_BATCH = 64
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True)
class ServeSettings:
    """Every setting of a service; the defaults suit one machine and its own user."""

    host: str = "127.0.0.1"
    """Address to listen on."""

    port: int = 8080
    """Port to listen on; 0: any free one."""

    store: Path = Path("milan-onnx-store")
    """Folder of the service's own data: the index of runs and jobs, uploads, the runs."""

    allow: tuple[Path, ...] = ()
    """Folders that models and photos of jobs may be read from; none: uploads only."""

    bundle: Path | None = None
    """The captioner; None: the built-in one."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    threads: int | None = None
    """Slices of a batch under way at once; None: the processors this process may use."""

    token: str | None = None
    """Bearer token that requests must carry; None: none is asked for."""

    read_only: bool = False
    """Refuse what writes: jobs, uploads, deletions."""

    max_body: int = 32 * MIB
    """Bytes of a request's body, at most."""

    max_upload: int = 512 * MIB
    """Bytes of an uploaded model with what comes with it, at most."""

    max_pending: int = 256 * MIB
    """Bytes of bodies held in memory at once, of all requests together."""

    body_seconds: float = 30.0
    """Seconds that a body may take to arrive; an upload may take longer by its length."""

    max_pixels: int = 32_000_000
    """Pixels of an image, at most; found in its header, before anything is decoded."""

    max_units: int = 64
    """Units of one request, at most."""

    max_images: int = 960
    """Exemplars of one request, all units together, at most."""

    max_phrases: int = 64
    """Phrases of one request for scores, at most."""

    max_nodes: int = 20_000
    """Nodes of a job's model, at most."""

    job_seconds: float = 6 * 3600.0
    """Seconds that a job may run."""

    job_memory: int = 4096 * MIB
    """Bytes of memory that a job's process may use."""

    max_jobs: int = 1
    """Jobs that run at once."""

    max_queued_jobs: int = 16
    """Jobs that wait, at most."""

    queue: int = 256
    """Units that wait, at most, of all requests together."""

    queue_images: int = 1024
    """Their exemplars, at most: each takes 150 KB of memory at an encoder's side of 224."""

    wait_ms: float = 5.0
    """Milliseconds that a batch waits for others that are on their way, at most."""

    batch: int = LARGEST_BATCH
    """Units of a batch, at most."""

    cache: int = 128 * MIB
    """Bytes of images seen last and their feature maps; 0: none are kept."""

    timeout: float = 30.0
    """Seconds from a request's admission to its answer, at most; where the measured rate says that
    half of them would go by in the queue, the request is refused."""

    grace: float = 30.0
    """Seconds that requests have to finish when the service is stopped."""

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in LOOPBACK

    def check(self) -> None:
        """Refuse what makes no sense, before anything starts. Raises UsageError."""
        wrong = {
            "port": not 0 <= self.port < 1 << 16,
            "batch": not 1 <= self.batch <= LARGEST_BATCH,
            "wait-ms": not 0 <= self.wait_ms <= 10_000,
            "cache": self.cache < 0,
            "token": self.token is not None and not _fits_a_header(self.token),
        }
        free = {"port", "batch", "wait_ms", "cache"}
        for field in fields(self):
            value = getattr(self, field.name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if number and field.name not in free:
                wrong[field.name.replace("_", "-")] = not (math.isfinite(value) and value > 0)
        wrong |= {
            "max-units": wrong["max-units"] or self.max_units > self.queue > 0,
            "max-images": wrong["max-images"] or self.max_images > self.queue_images > 0,
        }
        for name, bad in wrong.items():
            if bad:
                raise UsageError(f"the value of {name} is out of range", hint="see --help")


def _fits_a_header(token: str) -> bool:
    return bool(token) and token.isascii() and token.isprintable() and " " not in token
