"""A generator of images as a subject: its units are described by the images that it makes.

Everything else of the package reads photos, so a generator is given an input that looks like one: a
single pixel whose colour is the number of a latent (red + 256 green + 65536 blue). The latents, and
the classes where the generator takes some, are looked up inside the graph. So one pass, one top-k
and one way to resume serve both kinds of network (MILAN section 4.3, its BigGAN part).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from milan_onnx.errors import BadInput, SubjectError
from milan_onnx.geometry import Geometry
from milan_onnx.subject.model import Subject, dims_of, load
from milan_onnx.subject.preprocess import Preprocessing

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

MOST = 1 << 24
"""Numbers that a pixel can hold."""
LARGEST = 1 << 30
"""Bytes of latents that fit into a graph beside its weights."""
OLDEST_OPSET = 10
PREFIX = "milan/latents/"
"""What the names of the added nodes begin with."""
NUMBER = "milan_number"

PIXEL = Preprocessing(
    geometry=Geometry(crop=(1, 1), resize=None), mean=(0, 0, 0), std=(1, 1, 1), rescale=1.0
)
"""How a number reaches the graph: as it is."""


def read_latents(path: Path, what: str = "latents") -> NDArray[Any]:
    """The array of a .npy file, a row an image. Raises BadInput where it is none."""
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else "it is empty"
        raise BadInput(
            f"the {what} {path} cannot be read: {reason}", hint="save them with numpy.save"
        ) from error
    if not isinstance(found, np.ndarray) or found.ndim < 1 or len(found) < 1:
        raise BadInput(f"the {what} {path} hold no rows", hint="save an array with a row an image")
    if not (np.issubdtype(found.dtype, np.number) and np.isfinite(found).all()):
        raise BadInput(f"the {what} {path} hold values that are no numbers", hint="check the file")
    if len(found) > MOST or found.nbytes > LARGEST:
        size = f"{len(found)} rows, {found.nbytes >> 20} MiB"
        raise BadInput(f"the {what} {path} are too many ({size})", hint="give fewer")
    return found


def load_generator(
    path: Path,
    latents: NDArray[Any],
    classes: NDArray[Any] | None = None,
    *,
    fixed_inputs: Mapping[str, Any] | None = None,
) -> Subject:
    """Read a generator whose images are told by rows of latents.

    ``latents`` (N, ...) as its input takes them; ``classes`` (N,) numbers, or (N, C) rows such as
    one-hot ones. Raises SubjectError where no input takes them, BadInput where they do not fit one
    another.
    """
    if classes is not None and len(classes) != len(latents):
        raise BadInput(
            f"there are {len(latents)} latents and {len(classes)} classes",
            hint="give as many rows of each",
        )
    return load(path, fixed_inputs=fixed_inputs, rewrite=_looked_up(path, latents, classes))


def _looked_up(
    path: Path, latents: NDArray[Any], classes: NDArray[Any] | None
) -> Callable[[ModelProto], None]:
    """What gives a graph the input of a pixel in place of its own."""

    def rewrite(model: ModelProto) -> None:
        opset = max(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
        if opset < OLDEST_OPSET:
            raise SubjectError(
                f"{path} has opset {opset}, and generators are read from {OLDEST_OPSET} on",
                hint="export it again with a newer opset",
            )
        weights = {tensor.name for tensor in model.graph.initializer}
        inputs = [info for info in model.graph.input if info.name not in weights]
        z = _taking(path, inputs, latents.shape, "latents")
        front = _Front(len(latents))
        front.look_up(z, latents)
        taken = [z]
        if classes is not None:
            others = [info for info in inputs if info is not z]
            y = _class_input(path, others, classes)
            front.look_up(y, _as_rows(path, classes, dims_of(y) or ()))
            taken.append(y)
        _install(model, front, taken, (dims_of(z) or (None,))[0])

    return rewrite


def _taking(
    path: Path, inputs: Sequence[ValueInfoProto], shape: Sequence[int], what: str
) -> ValueInfoProto:
    """The first input whose rows are of the shape of these."""
    for info in inputs:
        dims = dims_of(info)
        if dims is not None and len(dims) == len(shape) and _fits(dims[1:], shape[1:]):
            return info
    seen = ", ".join(f"{info.name} {dims_of(info)}" for info in inputs) or "none"
    raise SubjectError(
        f"{path} has no input for {what} of shape {tuple(shape)}; its inputs are {seen}",
        hint="save them as the generator takes them, a row an image",
    )


def _fits(dims: Sequence[int | str | None], shape: Sequence[int]) -> bool:
    return all(
        not isinstance(dim, int) or dim == size for dim, size in zip(dims, shape, strict=True)
    )


def _class_input(
    path: Path, inputs: Sequence[ValueInfoProto], classes: NDArray[Any]
) -> ValueInfoProto:
    """The input of the classes: of their shape, or for numbers also one that takes rows."""
    if classes.ndim == 1:
        for info in inputs:
            dims = dims_of(info)
            if dims is not None and len(dims) == 2 and isinstance(dims[1], int):
                return info
    return _taking(path, inputs, classes.shape, "classes")


def _as_rows(path: Path, classes: NDArray[Any], dims: Sequence[int | str | None]) -> NDArray[Any]:
    """Numbers as one-hot rows, where the input takes rows."""
    if classes.ndim != 1 or len(dims) != 2:
        return classes
    count = int(dims[1] or 0)
    numbers = classes.astype(np.int64)
    if (numbers != classes).any() or numbers.min() < 0 or numbers.max() >= count:
        raise BadInput(
            f"the classes are not numbers from 0 to {count - 1}, which {path} takes",
            hint="check the file of --classes",
        )
    return np.eye(count, dtype=np.float32)[numbers]


class _Front:
    """Nodes from a pixel to rows of tables."""

    def __init__(self, rows: int) -> None:
        from onnx import TensorProto

        self.nodes: list[NodeProto] = []
        self.tables: list[TensorProto] = []
        powers = self._table("powers", np.array([1, 256, 65536], np.float32))
        flat = self._table("flat", np.array([-1, 3], np.int64))
        count = self._table("count", np.array(rows, np.int64))
        pixels = self._op("Cast", NUMBER, to=TensorProto.FLOAT)
        colours = self._op("Reshape", pixels, flat)
        number = self._op("Cast", self._op("MatMul", colours, powers), to=TensorProto.INT64)
        # Batches are checked with random frames; whatever they hold must be some latent.
        self._index = self._op("Mod", number, count)

    def look_up(self, info: ValueInfoProto, rows: NDArray[Any]) -> None:
        """Make an input of the generator from the row of the number."""
        from onnx import helper

        dtype = helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
        table = self._table(info.name, np.ascontiguousarray(rows.astype(dtype)))
        self._op("Gather", table, self._index, output=info.name, axis=0)

    def _table(self, name: str, value: NDArray[Any]) -> str:
        from onnx import numpy_helper

        self.tables.append(numpy_helper.from_array(value, f"milan_latents_{name}"))
        return self.tables[-1].name

    def _op(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        from onnx import helper

        name = output or f"milan_latents_{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(kind, inputs, [name], name=f"{PREFIX}{name}", **attributes)
        )
        return name


def _install(
    model: ModelProto,
    front: _Front,
    taken: Sequence[ValueInfoProto],
    batch: int | str | None,
) -> None:
    from onnx import TensorProto, helper

    graph = model.graph
    nodes = [*front.nodes, *graph.node]
    inputs = [info for info in graph.input if info.name not in {one.name for one in taken}]
    pixel = helper.make_tensor_value_info(NUMBER, TensorProto.UINT8, [batch or "N", 3, 1, 1])
    del graph.node[:], graph.input[:]
    graph.node.extend(nodes)
    graph.input.extend([pixel, *inputs])
    graph.initializer.extend(front.tables)
