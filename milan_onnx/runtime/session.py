"""One ONNX Runtime session: the settings that results depend on, and its errors in plain words.

Full graph optimisation always (only it uses the blocked convolution layout, and another level gives
other last bits), sequential execution, one device. ONNX Runtime's exceptions end here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from milan_onnx.errors import DeviceUnavailable, MilanError
from milan_onnx.runtime.device import Device, onnxruntime, preload_cuda

Array = NDArray[np.generic]


class Session:
    """A loaded graph on one device."""

    def __init__(
        self,
        model: bytes,
        device: Device,
        threads: int,
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
        options = _options(ort, threads, external_folder)
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
        self.outputs: tuple[str, ...] = tuple(o.name for o in self._session.get_outputs())

    def run(
        self, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None
    ) -> list[NDArray[Any]]:
        """Outputs in the order asked for (all by default)."""
        try:
            result: list[NDArray[Any]] = self._session.run(outputs, dict(inputs))
        except Exception as problem:  # see above
            raise self._error(f"{self._what} fails to run: {_reason(problem)}") from problem
        return result


def _options(ort: Any, threads: int, external_folder: Path | None) -> Any:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # Several sessions take turns, beside threads that decode: a spinning one steals their time.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if external_folder is not None:
        key = "session.model_external_initializers_file_folder_path"
        options.add_session_config_entry(key, str(external_folder))
    return options


def _reason(problem: Exception) -> str:
    """The first line of ONNX Runtime's message, without its code prefix."""
    line = str(problem).strip().splitlines()[0] if str(problem).strip() else repr(problem)
    _, _, tail = line.rpartition(" : ")
    return (tail or line)[:300]
