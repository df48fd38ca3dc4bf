"""What a classifier says with some of its units ablated, asked as often as needed.

The model is cut behind the earliest layer in question. The first part runs once; what it gave is
kept, in a file where it is much. Each question runs only the rest, with the units at zero.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from milan_onnx.applications.labelled import LabelledImages
from milan_onnx.choice import Choice
from milan_onnx.errors import SubjectError, UsageError
from milan_onnx.files import unwritable
from milan_onnx.probe import Batch, Loader, describe_skips
from milan_onnx.progress import Reporter
from milan_onnx.runtime import Device, Session, choose_device, choose_threads, in_order
from milan_onnx.subject import Layer, Preprocessing, SplitModel, Subject, output_units, split

Ids = NDArray[np.int64]
Array = NDArray[Any]
Unit = tuple[str, int]
"""(tensor of the layer, unit)"""
Units = Mapping[str, Sequence[int]]
"""Units by the tensor of their layer."""

BATCH = 16
JOINED = 4 << 20
"""Bytes up to which batches are joined for the second part."""
MEMORY = 512 << 20
"""Bytes of what the first part gave from which on it goes to a file."""


@dataclass(frozen=True)
class Classifier:
    """A model whose output is classes, and where it runs."""

    subject: Subject
    """The model."""

    preprocessing: Preprocessing
    """How photos become its input."""

    output: Choice[str]
    """The output (N, classes)."""

    classes: int
    """How many there are."""

    device: Choice[Device]
    """Where it runs."""

    threads: Choice[int]
    """Batches at once, and decoding threads."""

    say: Reporter
    """Where choices and progress are told."""

    @staticmethod
    def open(
        subject: Subject,
        preprocessing: Preprocessing,
        say: Reporter,
        output: str | None = None,
        device: str = "auto",
        threads: int | None = None,
    ) -> Classifier:
        """Choose the output and the machine, and say so. Raises UsageError without such output."""
        chosen = choose_output(subject, output)
        found = choose_device(device), choose_threads(threads)
        for what, choice in (("output", chosen), ("device", found[0]), ("threads", found[1])):
            say.choice(what, choice)
        classes = output_units(subject)[chosen.value]
        return Classifier(subject, preprocessing, chosen, classes, *found, say)

    @property
    def in_flight(self) -> int:
        """Batches at once: a GPU is filled by one."""
        return self.threads.value if self.device.value.name == "cpu" else 1

    def cut(self, layers: Sequence[Layer]) -> CutClassifier:
        """The model in two, units of some layers free to be ablated."""
        return CutClassifier(self, layers)


def choose_output(subject: Subject, wanted: str | None) -> Choice[str]:
    """The output that holds the classes. Raises UsageError where it is none, or not clear."""
    known = output_units(subject)
    listed = ", ".join(known) or "none"
    if wanted is not None:
        if wanted not in known:
            raise UsageError(
                f"the model has no output {wanted} of classes (N, classes)",
                hint=f"such outputs are {listed}",
            )
        return Choice(wanted, "--output")
    if len(known) != 1:
        raise UsageError(
            f"the model's outputs of classes (N, classes) are {listed}, not one",
            hint="name one with --output",
        )
    return Choice(listed, "the only output of classes")


def by_layer(units: Sequence[Unit]) -> Units:
    """Units by the tensor of their layer."""
    found: dict[str, list[int]] = {}
    for tensor, unit in units:
        found.setdefault(tensor, []).append(unit)
    return found


class CutClassifier:
    """A classifier in two sessions."""

    def __init__(self, whole: Classifier, layers: Sequence[Layer]) -> None:
        self._whole = whole
        self.layers = tuple(layers)
        batch = whole.subject.input.batch
        self._batch = batch or BATCH
        self._split: SplitModel = split(
            whole.subject, layers, whole.preprocessing, whole.output.value, batch=batch
        )
        self._first = self._session(self._split.prefix.model_bytes)
        self._second = self._session(self._split.suffix)

    def _session(self, model: bytes) -> Session:
        subject = self._whole.subject
        return Session(
            model,
            self._whole.device.value,
            what=str(subject.path),
            error=SubjectError,
            external_folder=subject.external_folder,
        )

    def passed(self, images: LabelledImages) -> PassedImages:
        """Run the first part on all images.

        Raises ProbeError where none can be used, OutputUnwritable where the disk is full.
        """
        whole = self._whole
        loader = Loader(
            images.probe,
            whole.preprocessing.geometry,
            batch_size=self._batch,
            workers=whole.threads.value,
        )
        parts = _Parts(self._batch if whole.subject.input.batch is None else None)

        def first(batch: Batch) -> list[Array]:
            return self.first(filled(batch.images, self._batch))

        with whole.say.stage("first part", len(images), "images") as meter:
            for batch, arrays in in_order(first, loader, whole.in_flight):
                parts.add(batch.ids, arrays)
                meter(len(batch.ids))
        parts.end()
        if loader.skipped or loader.converted:
            used = len(loader.digests)
            whole.say.note(describe_skips(used, loader.skipped, loader.converted))
        return PassedImages(self, parts, images.labels)

    def first(self, frames: NDArray[np.uint8]) -> list[Array]:
        """What the second part takes of frames (B, H, W, 3)."""
        return self._first.run({self._split.prefix.input_name: frames})

    def second(self, arrays: Sequence[Array], ablated: Units) -> NDArray[np.float32]:
        """The classes' scores (B, classes) of what the first part gave, some units at zero."""
        kept = [
            _kept(units, ablated.get(layer.tensor, ()))
            for layer, units in zip(self.layers, self._split.units, strict=True)
        ]
        inputs = dict(zip(self._split.passed, arrays, strict=True))
        return self._second.run({**inputs, **dict(zip(self._split.kept, kept, strict=True))})[0]

    @property
    def in_flight(self) -> int:
        """Batches at once."""
        return self._whole.in_flight


class PassedImages:
    """Labelled images behind the first part."""

    def __init__(self, cut: CutClassifier, parts: _Parts, labels: Ids) -> None:
        self._cut, self._store = cut, parts.store
        self._counts = [len(part) for part in parts.ids]
        self.ids = np.concatenate(parts.ids)
        """Numbers of the usable images (N,)."""
        self.labels = labels[self.ids]
        """Their classes (N,)."""

    def predicted(self, ablated: Units | None = None) -> Ids:
        """The class of the highest score of each image (N,), some units at zero; of equal scores
        the first."""

        def second(place: int) -> Ids:
            scores = self._cut.second(self._store[place], ablated or {})
            return np.asarray(scores[: self._counts[place]].argmax(axis=1))

        places = range(len(self._counts))
        return np.concatenate([p for _, p in in_order(second, places, self._cut.in_flight)])

    def right(self, ablated: Units | None = None) -> NDArray[np.bool_]:
        """Whether each image's class is named (N,)."""
        return np.asarray(self.predicted(ablated) == self.labels)

    def accuracy(self, ablated: Units | None = None) -> float:
        """Share of images whose class is named."""
        return float(self.right(ablated).mean())


class _Parts:
    """What the first part gave, batches of it joined: a late layer's are small, and each costs a
    run of the second part."""

    def __init__(self, batch: int | None) -> None:
        """``batch``: rows of what may be joined; None: nothing, the model's batch is fixed."""
        self.store = _Store()
        self.ids: list[Ids] = []
        self._batch = batch
        self._waiting: list[tuple[Ids, Sequence[Array]]] = []

    def add(self, ids: Ids, arrays: Sequence[Array]) -> None:
        """One more batch, filled up to its rows. Raises OutputUnwritable where the disk is full."""
        self._waiting.append((ids, arrays))
        rows = [array.shape[0] if array.ndim > 1 else None for array in arrays]
        size = sum(array.nbytes for _, waiting in self._waiting for array in waiting)
        if size >= JOINED or any(count != self._batch for count in rows):
            self.end()

    def end(self) -> None:
        """Keep what waits to be joined."""
        if not self._waiting:
            return
        ids, found = zip(*self._waiting, strict=True)
        self._waiting = []
        self.ids.append(np.concatenate(ids))
        if len(found) == 1:
            self.store.add(found[0])
            return
        # Without the rows that only fill up the last batch.
        self.store.add(
            [
                np.concatenate([a[: len(i)] for i, a in zip(ids, arrays, strict=True)])
                for arrays in zip(*found, strict=True)
            ]
        )


class _Store:
    """Arrays of batches: in memory, or where they are many in a file."""

    def __init__(self) -> None:
        self._batches: list[list[Array | tuple[int, np.dtype[Any], tuple[int, ...]]]] = []
        self._bytes = 0
        self._lock = Lock()
        self._file: Any = None

    def add(self, arrays: Sequence[Array]) -> None:
        """Keep those of one more batch. Raises OutputUnwritable where the disk is full."""
        self._bytes += sum(array.nbytes for array in arrays)
        if self._bytes <= MEMORY:
            self._batches.append(list(arrays))
            return
        try:
            self._batches.append([self._written(array) for array in arrays])
        except OSError as error:
            raise unwritable(Path(tempfile.gettempdir()), error) from error

    def _written(self, array: Array) -> tuple[int, np.dtype[Any], tuple[int, ...]]:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="milan-onnx-")  # noqa: SIM115 - lives on
        place = self._file.seek(0, 2)
        self._file.write(np.ascontiguousarray(array).tobytes())
        self._file.flush()
        return place, array.dtype, array.shape

    def __getitem__(self, place: int) -> list[Array]:
        return [self._read(kept) for kept in self._batches[place]]

    def _read(self, kept: Array | tuple[int, np.dtype[Any], tuple[int, ...]]) -> Array:
        if isinstance(kept, np.ndarray):
            return kept
        place, dtype, shape = kept
        size = int(np.prod(shape)) * dtype.itemsize
        with self._lock:  # batches are read from several threads
            self._file.seek(place)
            data = self._file.read(size)
        return np.frombuffer(data, dtype).reshape(shape)


def filled(frames: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """Frames filled up with the last of them: equal shapes take equal kernels."""
    if len(frames) == count:
        return frames
    return np.concatenate((frames, np.repeat(frames[-1:], count - len(frames), axis=0)))


def _kept(units: int, ablated: Sequence[int]) -> NDArray[np.bool_]:
    kept = np.ones(units, np.bool_)
    kept[list(ablated)] = False
    return kept
