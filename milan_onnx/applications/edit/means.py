"""Mean activations of units over a run's photos: what a unit is set to that should tell nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from milan_onnx.applications.ablating import filled
from milan_onnx.applications.phrases import Scoring
from milan_onnx.applications.reopened import run_preprocessing
from milan_onnx.errors import SubjectError
from milan_onnx.probe import Batch, Loader
from milan_onnx.progress import Reporter
from milan_onnx.reporting import run_probe
from milan_onnx.run import Run
from milan_onnx.runtime import Session, choose_device, choose_threads, in_order
from milan_onnx.subject import Layer, Subject, tap

BATCH = 8


def mean_activations(
    run: Run, subject: Subject, layers: Sequence[Layer], where: Scoring, say: Reporter
) -> dict[str, list[float]]:
    """The mean of each unit over positions and photos, by the tensor of its layer.

    ``where``: the photos, where they have moved, and the machine. Summed photo by photo in their
    order, in double precision: no batch size changes it. Raises RunError where the run's photos are
    gone or others.
    """
    preprocessing = run_preprocessing(run)
    device, threads = choose_device(where.device), choose_threads(where.threads)
    batch = subject.input.batch
    tapped = tap(subject, layers, preprocessing, batch=batch)
    session = Session(
        tapped.model_bytes,
        device.value,
        what=str(subject.path),
        error=SubjectError,
        external_folder=tapped.external_folder,
    )
    probe = run_probe(run, where.images)
    size = batch or BATCH
    loader = Loader(probe, preprocessing.geometry, batch_size=size, workers=threads.value)

    def photo_means(part: Batch) -> list[NDArray[np.float64]]:
        count = len(part.images)
        found = session.run({tapped.input_name: filled(part.images, size)})
        return [out[:count].mean(axis=(2, 3), dtype=np.float64) for out in found]

    totals = [np.zeros(layer.units or 0) for layer in layers]
    images = 0
    with say.stage("means", len(probe), "images") as meter:
        for part, means in in_order(photo_means, loader, threads.value):
            images += len(part.ids)
            for total, found in zip(totals, means, strict=True):
                for row in found:
                    total += row
            meter(len(part.ids))
    return {
        layer.tensor: (total / images).tolist() for layer, total in zip(layers, totals, strict=True)
    }
