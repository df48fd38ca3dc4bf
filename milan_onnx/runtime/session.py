"""One ONNX Runtime session: the settings that results depend on, and its errors in plain words.

Full graph optimisation always (only it uses the blocked convolution layout, and another level gives
other last bits), and one thread a run: a matrix product split over threads differs in its last bits
with their number, and with the rows that share a batch. Processors are filled by running several
batches at once instead (`in_order`), which is as fast. ONNX Runtime's exceptions end here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from milan_onnx.errors import DeviceUnavailable, MilanError
from milan_onnx.runtime.device import Device, onnxruntime, preload_cuda

Array = NDArray[np.generic]
T = TypeVar("T")
R = TypeVar("R")


class Session:
    """A loaded graph on one device."""

    def __init__(
        self,
        model: bytes,
        device: Device,
        *,
        what: str,
        error: type[MilanError],
        external_folder: Path | None = None,
    ) -> None:
        """Load a graph; ``what`` names it in errors, of type ``error``.

        Raises DeviceUnavailable when the session does not run where it was asked to.
        """
        ort = onnxruntime()
        self._what = what
        self._error = error
        options = _options(ort, external_folder)
        if device.name == "cuda":
            preload_cuda()
        try:
            self._session = ort.InferenceSession(model, options, providers=device.providers())
        except Exception as problem:  # ONNX Runtime's own exceptions have no common base
            raise error(f"ONNX Runtime cannot load {what}: {_reason(problem)}") from problem
        if self._session.get_providers()[0] != device.provider:
            raise DeviceUnavailable(
                f"{what} does not run on {device}", hint="run `milan-onnx doctor`"
            )

    def run(
        self, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None
    ) -> list[NDArray[Any]]:
        """Outputs in the order asked for (all by default)."""
        try:
            result: list[NDArray[Any]] = self._session.run(outputs, dict(inputs))
        except Exception as problem:  # see above
            raise self._error(f"{self._what} fails to run: {_reason(problem)}") from problem
        return result


def in_order(work: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[tuple[T, R]]:
    """Each item with its result, in order, with ``workers`` of them under way at once.

    Items are taken one ahead of the workers, so memory is bounded. Ending early cancels the rest.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="milan-run")
    waiting: deque[tuple[T, Future[R]]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(work, item)))
            if len(waiting) > workers:
                done, future = waiting.popleft()
                yield done, future.result()
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _options(ort: Any, external_folder: Path | None) -> Any:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if external_folder is not None:
        key = "session.model_external_initializers_file_folder_path"
        options.add_session_config_entry(key, str(external_folder))
    return options


def _reason(problem: Exception) -> str:
    """The first line of ONNX Runtime's message, without its code prefix."""
    line = str(problem).strip().splitlines()[0] if str(problem).strip() else repr(problem)
    _, _, tail = line.rpartition(" : ")
    return (tail or line)[:300]
