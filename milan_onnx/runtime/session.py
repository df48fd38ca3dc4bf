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
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from milan_onnx.errors import DeviceUnavailable, MilanError
from milan_onnx.runtime.device import Device, onnxruntime, preload_cuda

Array = NDArray[np.generic]


class Held(Protocol):
    """A tensor on a device, as ONNX Runtime holds it."""

    def shape(self) -> list[int]:
        """Its dimensions."""

    def numpy(self) -> NDArray[Any]:
        """Its values, brought to memory."""


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
        self._device = device
        options = _options(ort, external_folder)
        if device.name == "cuda":
            preload_cuda()
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        try:
            self._session = ort.InferenceSession(model, options, providers=device.providers())
        except Exception as problem:  # ONNX Runtime's own exceptions have no common base
            raise error(f"ONNX Runtime cannot load {what}: {_reason(problem)}") from problem
        if self._session.get_providers()[0] != device.provider:
            raise DeviceUnavailable(
                f"{what} does not run on {device}", hint="run `milan-onnx doctor`"
            )

    @property
    def on_cpu(self) -> str:
        """Which nodes run on the CPU though a GPU was asked for, such as '3 of 120 nodes: Shape,
        Gather'; '' for none, and where ONNX Runtime is too old to tell."""
        assigned = getattr(self._session, "get_provider_graph_assignment_info", None)
        if self._device.name == "cpu" or assigned is None:
            return ""
        parts = assigned()
        kinds = [(part.ep_name, node.op_type) for part in parts for node in part.get_nodes()]
        here = [kind for provider, kind in kinds if provider != self._device.provider]
        if not here:
            return ""
        return f"{len(here)} of {len(kinds)} nodes: {', '.join(sorted(set(here)))}"

    def run(
        self, inputs: Mapping[str, Array | Held], outputs: Sequence[str] | None = None
    ) -> list[NDArray[Any]]:
        """Outputs in the order asked for (all by default), in memory."""
        if any(not isinstance(value, np.ndarray) for value in inputs.values()):
            return [value.numpy() for value in self._bound(inputs, outputs, "cpu", 0)]
        try:
            result: list[NDArray[Any]] = self._session.run(outputs, dict(inputs))
        except Exception as problem:  # see above
            raise self._failed(problem) from problem
        return result

    def run_held(self, inputs: Mapping[str, Array | Held]) -> list[Held]:
        """All outputs, left on the device."""
        return self._bound(inputs, None, self._device.name, self._device.index)

    def _bound(
        self,
        inputs: Mapping[str, Array | Held],
        outputs: Sequence[str] | None,
        memory: str,
        index: int,
    ) -> list[Held]:
        try:
            binding = self._session.io_binding()
            for name, value in inputs.items():
                if isinstance(value, np.ndarray):
                    binding.bind_cpu_input(name, np.ascontiguousarray(value))
                else:
                    binding.bind_ortvalue_input(name, value)
            for name in outputs or [output.name for output in self._session.get_outputs()]:
                binding.bind_output(name, memory, index)
            self._session.run_with_iobinding(binding)
            found: list[Held] = binding.get_outputs()
        except Exception as problem:  # see above
            raise self._failed(problem) from problem
        return found

    def _failed(self, problem: Exception) -> MilanError:
        return self._error(f"{self._what} fails to run: {_reason(problem)}")


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
