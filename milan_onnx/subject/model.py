"""Reading the subject: one ONNX file with one image input, checked before anything else runs.

Weights in external files are never loaded here, only checked to be there: the graph alone is
enough to list, resolve and cut, so a model of many gigabytes costs what its graph costs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from milan_onnx.errors import SubjectError
from milan_onnx.files import sha256_file

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

ImageLayout = Literal["NCHW", "NHWC"]
FixedValue = float | int | list[Any]

IMAGE_DTYPES = ("uint8", "float16", "bfloat16", "float32", "float64")
CHANNEL_COUNTS = (1, 3, 4)

LARGEST_SHAPE = 4096
"""Bytes of an integer constant that may be a shape."""


@dataclass(frozen=True)
class ImageInput:
    """The input of the subject that takes the photo."""

    name: str
    """Its name in the graph."""

    dtype: str
    """One of uint8, float16, bfloat16, float32, float64."""

    layout: ImageLayout
    """Where the channels are: NCHW or NHWC."""

    channels: int
    """1 (grey), 3 (colour) or 4 (colour and alpha)."""

    height: int | None
    """Pixels, or None where the model leaves it free."""

    width: int | None
    """Pixels, or None where the model leaves it free."""

    batch: int | None
    """The batch that the model was exported with, or None where it is free."""


# Compared and hashed by identity: what is worked out about a subject is kept beside it.
@dataclass(frozen=True, eq=False)
class Subject:
    """The network under study, as read from its file."""

    path: Path
    """The model file."""

    sha256: str
    """Content hash of the model file, and of its external files where it has any."""

    model: ModelProto
    """The parsed model, without its external weights. Never changed: edits are made on copies."""

    input: ImageInput
    """The image input."""

    external_folder: Path | None
    """The folder of the external weights, or None when all weights are in the file."""

    metadata: Mapping[str, str]
    """The model's ``metadata_props``."""

    fixed: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """The values of the other inputs, with the dtype and shape that the graph wants."""


def load(
    path: Path,
    *,
    fixed_inputs: Mapping[str, FixedValue] | None = None,
    rewrite: Callable[[ModelProto], None] = lambda model: None,
) -> Subject:
    """Read a model file and find its image input.

    ``fixed_inputs`` gives a constant (a number, or nested lists) to each input that is no image.
    ``rewrite`` may give the graph an image input first.
    Raises SubjectError when the file cannot be used, with the reason and what to do.
    """
    path = Path(path)
    model = parse_model(path)
    _check_versions(path, model)
    files = _external_files(path, model)
    _take_in_shapes(path, model)
    rewrite(model)
    given = dict(fixed_inputs or {})
    image, others = _split_inputs(model, given)
    return Subject(
        path=path,
        sha256=_content_hash(path, files),
        model=model,
        input=image,
        external_folder=path.resolve().parent if files else None,
        metadata={entry.key: entry.value for entry in model.metadata_props},
        fixed={info.name: _fixed_value(info, given[info.name]) for info in others},
    )


def parse_model(path: Path) -> ModelProto:
    """Read a model file without its external weights. Raises SubjectError where it is none."""
    import onnx

    data = _read(path)
    try:
        model = onnx.load_model_from_string(data)
    # Protobuf has an error class of its own, which is not worth an import of protobuf.
    except Exception as error:
        raise SubjectError(
            f"{path} is not an ONNX model, or is cut short", hint=_format_hint(data)
        ) from error
    if not model.HasField("graph") or not model.opset_import:
        raise SubjectError(f"{path} is not a whole ONNX model", hint=_format_hint(data))
    if not model.graph.node:
        raise SubjectError(f"the graph of {path} has no nodes", hint="give a model that computes")
    _check_names(path, model)
    return model


def _check_names(path: Path, model: ModelProto) -> None:
    """Raise SubjectError for a name that is not UTF-8: protobuf then hands out bytes."""
    for index, node in enumerate(model.graph.node):
        names = (node.name, node.op_type, *node.input, *node.output)
        if not all(isinstance(name, str) for name in names):
            raise SubjectError(
                f"node {index} of {path} has a name that is no text (UTF-8)",
                hint="the file is damaged: export or download the model again",
            )


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise SubjectError(f"{path} is a folder, not an ONNX file", hint=_folder_hint(path))
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise SubjectError(f"there is no file {path}", hint="check the path") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise SubjectError(f"cannot read {path}: {reason}", hint="check the file") from error
    if not data:
        raise SubjectError(f"{path} is empty", hint="export or download the model again")
    return data


def _folder_hint(path: Path) -> str:
    inside = sorted(entry.name for entry in path.glob("*.onnx"))
    return f"it holds {', '.join(inside[:5])}" if inside else "give the .onnx file itself"


def _format_hint(data: bytes) -> str:
    if data.startswith((b"PK", b"\x80")):
        return "it looks like a PyTorch checkpoint: export it with torch.onnx.export first"
    if data.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer: fetch the real file with git lfs pull"
    return "export or download the model again"


def _check_versions(path: Path, model: ModelProto) -> None:
    import onnx

    newest = onnx.defs.onnx_opset_version()
    if model.ir_version > onnx.IR_VERSION:
        raise SubjectError(
            f"{path} has IR version {model.ir_version}, this onnx package reads up to "
            f"{onnx.IR_VERSION}",
            hint="upgrade the onnx package",
        )
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx") and not 1 <= opset.version <= newest:
            raise SubjectError(
                f"{path} wants opset {opset.version}, this onnx package knows 1 to {newest}",
                hint="upgrade the onnx package, or export with an older opset",
            )


# --- external weights ---------------------------------------------------------------------------


def external_files(subject: Subject) -> tuple[Path, ...]:
    """The files that hold weights of the subject, beside its own."""
    return _external_files(subject.path, subject.model)


def _external_files(path: Path, model: ModelProto) -> tuple[Path, ...]:
    """The external files, each checked to be inside the folder, there, and long enough."""
    folder = path.resolve().parent
    sizes: dict[str, int] = {}
    for tensor in all_tensors(model):
        if tensor.data_location == tensor.EXTERNAL:
            location, _, end = _extent(path, tensor)
            sizes[location] = max(sizes.get(location, 0), end)
    for location in sizes:
        _check_inside(path, folder, location)
    missing = sorted(location for location in sizes if not (folder / location).is_file())
    if missing:
        raise SubjectError(
            f"{path} keeps its weights in files that are not there: {', '.join(missing)}",
            hint="put them beside the model",
        )
    for location, size in sizes.items():
        if (folder / location).stat().st_size < size:
            raise SubjectError(
                f"{location} is shorter than {path} says ({size} bytes)",
                hint="it is cut short or of another model: fetch it again",
            )
    return tuple(folder / location for location in sorted(sizes))


def _extent(path: Path, tensor: TensorProto) -> tuple[str, int, int]:
    """The external file of a tensor, and the bytes at which it begins and ends there."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    try:
        offset, length = int(entries.get("offset") or 0), int(entries.get("length") or 0)
    except ValueError:
        offset = length = -1
    if not location or offset < 0 or length < 0:
        raise SubjectError(
            f"the weight {tensor.name} of {path} has a broken external data entry",
            hint="export the model again",
        )
    return location, offset, offset + max(length, _size(tensor))


def _take_in_shapes(path: Path, model: ModelProto) -> None:
    """Read small external integers: they are targets of Reshape and the like, not weights."""
    for tensor in all_tensors(model):
        if tensor.data_location != tensor.EXTERNAL or tensor.data_type != tensor.INT64:
            continue
        size = _size(tensor)
        if size <= LARGEST_SHAPE:
            location, offset, _ = _extent(path, tensor)
            with (path.resolve().parent / location).open("rb") as file:
                file.seek(offset)
                tensor.raw_data = file.read(size)
            del tensor.external_data[:]
            tensor.data_location = tensor.DEFAULT


def _size(tensor: TensorProto) -> int:
    from onnx import helper

    count = int(np.prod([int(dim) for dim in tensor.dims], dtype=np.int64))
    try:
        return count * int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    except (KeyError, TypeError):
        return 0


def _check_inside(path: Path, folder: Path, location: str) -> None:
    posix, windows = PurePosixPath(location), PureWindowsPath(location)
    climbs = ".." in posix.parts or ".." in windows.parts
    absolute = posix.is_absolute() or bool(windows.drive) or bool(windows.root)
    if climbs or absolute or not (folder / location).resolve().is_relative_to(folder):
        raise SubjectError(
            f"{path} asks for weights outside its folder: {location}",
            hint="external data must lie in the model's own folder",
        )


def all_tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Every tensor that a model holds: weights, attributes, those of inner graphs and functions."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from _node_tensors(function.node)


def _graph_tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Iterable[NodeProto]) -> Iterator[TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            yield from _attribute_tensors(attribute)


def _attribute_tensors(attribute: AttributeProto) -> Iterator[TensorProto]:
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    if attribute.HasField("g"):
        yield from _graph_tensors(attribute.g)
    for graph in attribute.graphs:
        yield from _graph_tensors(graph)


def _content_hash(path: Path, files: tuple[Path, ...]) -> str:
    own = sha256_file(path)
    if not files:
        return own
    return hashlib.sha256(" ".join([own, *map(sha256_file, files)]).encode()).hexdigest()


# --- inputs -------------------------------------------------------------------------------------


def _split_inputs(
    model: ModelProto, given: Mapping[str, FixedValue]
) -> tuple[ImageInput, list[ValueInfoProto]]:
    """The image input, and the other inputs that some node reads."""
    constant = {tensor.name for tensor in model.graph.initializer}
    constant |= {sparse.values.name for sparse in model.graph.sparse_initializer}
    inputs = [info for info in model.graph.input if info.name not in constant]
    names = [info.name for info in inputs]
    for name in given:
        if name not in names:
            raise SubjectError(
                f"the model has no input {name}", hint=f"its inputs are {', '.join(names)}"
            )
    candidates = [info for info in inputs if info.name not in given and _looks_like_image(info)]
    image = _only_image(inputs, candidates)
    used = _names_read(model.graph)
    others = [info for info in inputs if info is not image and info.name in used]
    absent = [info.name for info in others if info.name not in given]
    if absent:
        raise SubjectError(
            f"besides the image {image.name} the model wants {', '.join(absent)}",
            hint=f"fix each with --input NAME=VALUE, such as --input {absent[0]}=0",
        )
    return _image_input(image), others


def _only_image(inputs: list[ValueInfoProto], candidates: list[ValueInfoProto]) -> ValueInfoProto:
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        names = ", ".join(info.name for info in candidates)
        raise SubjectError(
            f"several inputs could be the image: {names}",
            hint="fix the others with --input NAME=VALUE",
        )
    seen = ", ".join(f"{info.name} {_describe(info)}" for info in inputs) or "none"
    raise SubjectError(
        f"the model has no image input; its inputs are {seen}",
        hint="an image is of rank 4 with 1, 3 or 4 channels, as (N,3,H,W) or (N,H,W,3); of a "
        "generator give the --latents",
    )


def dims_of(info: ValueInfoProto) -> tuple[int | str | None, ...] | None:
    """The dimensions that a value declares: a number, a symbol or None each; None: no rank."""
    tensor = info.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else dim.dim_param or None
        for dim in tensor.shape.dim
    )


def _looks_like_image(info: ValueInfoProto) -> bool:
    dims = dims_of(info)
    return dims is not None and len(dims) == 4 and _image_layout(dims) is not None


def _image_layout(dims: tuple[int | str | None, ...]) -> ImageLayout | None:
    if dims[1] in CHANNEL_COUNTS:
        return "NCHW"
    return "NHWC" if dims[3] in CHANNEL_COUNTS else None


def _image_input(info: ValueInfoProto) -> ImageInput:
    dims = dims_of(info) or ()
    layout = _image_layout(dims) or "NCHW"
    order = (0, 1, 2, 3) if layout == "NCHW" else (0, 3, 1, 2)
    batch, channels, height, width = (_known(dims[axis]) for axis in order)
    dtype = dtype_name(info.type.tensor_type.elem_type)
    if dtype not in IMAGE_DTYPES:
        raise SubjectError(
            f"the image input {info.name} is {dtype}",
            hint=f"supported are {', '.join(IMAGE_DTYPES)}",
        )
    return ImageInput(info.name, dtype, layout, channels or 3, height, width, batch)


def _known(dim: int | str | None) -> int | None:
    return dim if isinstance(dim, int) else None


def dtype_name(elem_type: int) -> str:
    """The name of an ONNX element type, as numpy writes it: float32, bfloat16, int64, …"""
    from onnx import TensorProto

    name = str(TensorProto.DataType.Name(elem_type)).lower()
    return {"float": "float32", "double": "float64"}.get(name, name)


def _describe(info: ValueInfoProto) -> str:
    dims = dims_of(info)
    shape = "of unknown rank" if dims is None else f"({', '.join(str(dim or '?') for dim in dims)})"
    return f"{dtype_name(info.type.tensor_type.elem_type)} {shape}"


def _names_read(graph: GraphProto) -> set[str]:
    names: set[str] = {output.name for output in graph.output}
    for node in graph.node:
        names.update(node.input)
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                names |= _names_read(inner)
    return names


def _fixed_value(info: ValueInfoProto, value: FixedValue) -> NDArray[Any]:
    """The constant of an input; a number fills the shape, and free dimensions become 1."""
    from onnx import helper

    dtype = helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
    shape = tuple(_known(dim) or 1 for dim in dims_of(info) or ())
    try:
        array = np.asarray(value, dtype=dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise SubjectError(
            f"--input {info.name}={value} is no value of {_describe(info)}", hint="check the value"
        ) from error
    return np.full(shape, array, dtype=dtype) if array.ndim == 0 else array
