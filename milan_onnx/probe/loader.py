"""Frames in batches: decoded by a few threads ahead of the network, in the order of their ids."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from milan_onnx.errors import ProbeError
from milan_onnx.geometry import Geometry
from milan_onnx.machine import processors
from milan_onnx.probe.base import ProbeSet
from milan_onnx.probe.checksum import Checksum
from milan_onnx.probe.decode import Unusable

MAX_WORKERS = 8
READERS = 16
"""Threads of a set that waits for another machine, at least."""
BLOCK = 64
"""Photos that a thread hashes at a time: to hand out each by itself costs as much as to hash it."""

SHOWN = 10


@dataclass(frozen=True)
class Batch:
    """Frames of usable images."""

    ids: NDArray[np.int64]
    """(B,), ascending as in the listing."""

    images: NDArray[np.uint8]
    """(B, H, W, 3), RGB."""


@dataclass(frozen=True)
class Skipped:
    """An image that could not be used."""

    id: int
    """Its position in the listing."""

    name: str
    """Its relative name."""

    reason: str
    """Why, in a few words."""


@dataclass(frozen=True)
class Converted:
    """An image that is used, but not as it was in the file."""

    id: int
    """Its position in the listing."""

    name: str
    """Its relative name."""

    how: str
    """What was changed, in a few words."""


@dataclass(frozen=True)
class Outcome:
    """What became of one image."""

    id: int
    """Its position in the listing."""

    frame: NDArray[np.uint8] | None
    """(H, W, 3), or None when it is unusable."""

    note: str
    """What was converted, or why it is unusable."""

    digest: str
    """SHA-256 of its bytes; '' when unusable."""


@dataclass
class Loader:
    """Iterate over a probe set in batches of exactly ``batch_size`` frames (the last may be less).

    Unusable images leave no holes. The batches do not depend on ``workers``. Beside the batch that
    was handed out at most one more is held, and a frame for each worker. Ending the iteration
    early stops the threads. ``skipped``, ``converted`` and ``digests`` say what was met so far and
    begin anew with each iteration.

    Raises ProbeError at the end when not one image was usable, unless ``lenient``.
    """

    probe: ProbeSet
    """The images."""

    geometry: Geometry
    """How an image becomes a frame."""

    batch_size: int = field(kw_only=True)
    """Frames in a batch."""

    workers: int | None = field(default=None, kw_only=True)
    """Decoding threads; None: one for each core that this process may use, at most 8. A set in
    object storage has 16 at least, which mostly wait."""

    ids: Sequence[int] | None = field(default=None, kw_only=True)
    """The images to load, in ascending order; None: all."""

    lenient: bool = field(default=False, kw_only=True)
    """Whether it is no error that not one of them is usable."""

    skipped: list[Skipped] = field(default_factory=list, init=False)
    """Unusable images so far, by id."""

    converted: list[Converted] = field(default_factory=list, init=False)
    """Converted images so far, by id."""

    digests: dict[int, str] = field(default_factory=dict, init=False)
    """SHA-256 of the bytes of each usable image so far, by id."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}, not 1 or more")
        if self.ids is not None and any(
            b <= a for a, b in zip(self.ids, self.ids[1:], strict=False)
        ):
            raise ValueError("ids are not in ascending order")

    def __iter__(self) -> Iterator[Batch]:
        self.skipped, self.converted, self.digests = [], [], {}
        ids = range(len(self.probe)) if self.ids is None else self.ids
        with _Pipeline(self.probe, ids, self.geometry, self.workers) as pipeline:
            while (batch := self._fill(pipeline)) is not None:
                # Decoding goes on while the caller works on this batch.
                pipeline.top_up(self.batch_size + pipeline.workers)
                yield batch
        if len(ids) and not self.digests and not self.lenient:
            raise nothing_usable(self.skipped)

    def _fill(self, pipeline: _Pipeline) -> Batch | None:
        images = np.empty((self.batch_size, *self.geometry.size, 3), np.uint8)
        ids: list[int] = []
        while len(ids) < self.batch_size:
            outcome = pipeline.pop(self.batch_size - len(ids) + pipeline.workers)
            if outcome is None:
                break
            self._record(outcome)
            if outcome.frame is not None:
                images[len(ids)] = outcome.frame
                ids.append(outcome.id)
        return Batch(np.array(ids, np.int64), images[: len(ids)]) if ids else None

    def _record(self, outcome: Outcome) -> None:
        name = self.probe.names[outcome.id]
        if outcome.frame is None:
            self.skipped.append(Skipped(outcome.id, name, outcome.note))
            return
        self.digests[outcome.id] = outcome.digest
        if outcome.note:
            self.converted.append(Converted(outcome.id, name, outcome.note))


class _Pipeline:
    """Frames by a pool of threads, handed out in the order of the ids."""

    def __init__(
        self, probe: ProbeSet, ids: Sequence[int], geometry: Geometry, workers: int | None
    ) -> None:
        self.workers = _threads(probe, workers)
        self._probe = probe
        self._geometry = geometry
        self._waiting = iter(ids)
        self._ahead: deque[Future[Outcome]] = deque()
        self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="milan-probe")

    def __enter__(self) -> _Pipeline:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # What is being decoded ends (one image a thread); what has not begun never does.
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._probe.close()

    def top_up(self, window: int) -> None:
        """Have this many images ahead, being decoded or done."""
        while len(self._ahead) < window:
            index = next(self._waiting, None)
            if index is None:
                return
            self._ahead.append(self._pool.submit(_outcome, self._probe, index, self._geometry))

    def pop(self, window: int) -> Outcome | None:
        """The next image's outcome; None after the last."""
        self.top_up(window)
        return self._ahead.popleft().result() if self._ahead else None


def _outcome(probe: ProbeSet, index: int, geometry: Geometry) -> Outcome:
    try:
        loaded = probe.load(index)
    except Unusable as error:
        return Outcome(index, None, str(error), "")
    except MemoryError:
        return Outcome(index, None, "not enough memory to decode it", "")
    return Outcome(index, geometry.frame(loaded.image), loaded.converted, loaded.digest)


def _threads(probe: ProbeSet, workers: int | None) -> int:
    return max(workers or default_workers(), READERS if probe.waits else 1)


def default_workers() -> int:
    """A thread for each core that this process may use, at most 8."""
    return min(MAX_WORKERS, processors())


def frames(
    probe: ProbeSet, ids: Sequence[int], geometry: Geometry, *, workers: int | None = None
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Some images again, at another geometry: (id, frame of uint8 (H, W, 3)), in the order given.

    Raises ProbeError for an image that is unusable: it was usable when the ids were chosen.
    """
    with _Pipeline(probe, ids, geometry, workers) as pipeline:
        while (outcome := pipeline.pop(2 * pipeline.workers)) is not None:
            if outcome.frame is None:
                raise ProbeError(
                    f"the probe image {probe.names[outcome.id]} can no longer be used: "
                    f"{outcome.note}",
                    hint="leave the photos alone while a run goes on",
                )
            yield outcome.id, outcome.frame


def probe_digest(digests: Mapping[int, str], names: Sequence[str]) -> str:
    """One hash for a set of images: over id, name and digest, in any order."""
    total = Checksum()
    for index, digest in digests.items():
        total.add(index, names[index], digest)
    return total.hexdigest()


def listing_digest(
    probe: ProbeSet, ids: Sequence[int] | None = None, *, workers: int | None = None
) -> str:
    """One hash for images that a set lists, usable or not, found without decoding any.

    ``ids``: which, None: all. Of photos the bytes count, of drawn images what they are drawn of.
    """
    ids = range(len(probe)) if ids is None else ids
    blocks = [ids[start : start + BLOCK] for start in range(0, len(ids), BLOCK)]
    threads = 1 if probe.streamed else _threads(probe, workers)
    with ThreadPoolExecutor(threads, thread_name_prefix="milan-hash") as pool:
        parts = pool.map(lambda block: [_listed_digest(probe, i) for i in block], blocks)
        digests = [digest for part in parts for digest in part]
    probe.close()
    return probe_digest(dict(zip(ids, digests, strict=True)), probe.names)


def _listed_digest(probe: ProbeSet, index: int) -> str:
    try:
        return probe.digest(index)
    except Unusable as error:
        return f"unusable: {error}"


def nothing_usable(skipped: Sequence[Skipped]) -> ProbeError:
    """The error for photos of which not one can be used."""
    reasons = _listed([f"{s.name}: {s.reason}" for s in skipped], 3)
    return ProbeError(
        f"none of the {len(skipped)} probe images can be used ({reasons})",
        hint="give other photos",
    )


def describe_skips(usable: int, skipped: Sequence[Skipped], converted: Sequence[Converted]) -> str:
    """One line on what was met: 'probe images: 118 usable; 2 skipped (…), 3 converted (…)'."""
    parts = []
    if skipped:
        listed = _listed([f"{s.name}: {s.reason}" for s in skipped], SHOWN)
        parts.append(f"{len(skipped)} skipped ({listed})")
    if converted:
        listed = _listed([f"{c.name}: {c.how}" for c in converted], SHOWN)
        parts.append(f"{len(converted)} converted ({listed})")
    head = f"probe images: {usable} usable"
    return f"{head}; {', '.join(parts)}" if parts else head


def _listed(items: Sequence[str], shown: int) -> str:
    rest = len(items) - shown
    return "; ".join(items[:shown]) + (f"; and {rest} more" if rest > 0 else "")
