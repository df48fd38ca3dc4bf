"""Reads what ``torch.save`` wrote without running anything that is in it.

A pickle is a program: it may call whatever it can name. Here it can name an ordered dict, tensors,
and the configuration classes that spaCy leaves in MILAN's checkpoints (they become plain dicts);
any other name is refused before it is looked up. Tensors are built from the archive's records with
their bounds checked, so a damaged file ends in a sentence and not in memory that is not there.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from milan_onnx.errors import BadInput

LARGEST_PICKLE = 256 * 2**20
"""Bytes of the archive's pickle; spaCy's pipelines in published checkpoints take 24 MB."""
LARGEST_RANK = 8
DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
CONFIGS = frozenset({"thinc", "confection", "spacy"})
"""Packages whose ``...Config`` classes are dicts of settings."""
HINT = "give a file that torch.save wrote, or get it again"


class Refused(BadInput):
    """A pickle that names what it may not."""


@dataclass(frozen=True)
class _Storage:
    """A record of the archive, as the pickle refers to it."""

    dtype: torch.dtype
    """Type of its elements."""

    record: str
    """Name of the record."""

    count: int
    """Number of elements."""


def load_pickle(path: Path) -> Any:
    """The object that ``torch.save`` wrote to a file (zip format, PyTorch 1.6 or later).

    Tensors are copies in memory. Raises BadInput where the file is not such an archive, is cut
    short, compressed or inconsistent, and Refused, naming it, where its pickle asks for code.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _Reader(path, archive).load()
    except zipfile.BadZipFile as error:
        raise BadInput(f"{path} is not a PyTorch archive: {error}", hint=HINT) from error
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}") from error


class _Reader:
    """One archive that is being read."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path, self.archive = path, archive
        self.loaded: dict[str, Tensor] = {}
        names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise self.bad(f"it holds {len(names)} records data.pkl, not one")
        self.pickle = names[0]
        self.root = self.pickle.removesuffix("data.pkl")
        if f"{self.root}constants.pkl" in archive.namelist():
            raise self.bad("it is a TorchScript program, not a checkpoint")

    def bad(self, reason: str) -> BadInput:
        return BadInput(f"{self.path} is not a usable checkpoint: {reason}", hint=HINT)

    def load(self) -> Any:
        if self.text("byteorder", "little") != "little":
            raise self.bad("it was written on a big-endian machine")
        info = self.archive.getinfo(self.pickle)
        if info.file_size > LARGEST_PICKLE:
            raise self.bad(f"its pickle is larger than {LARGEST_PICKLE} bytes")
        with self.archive.open(info) as stream:
            try:
                return _unpickler(stream, self).load()
            except (BadInput, MemoryError):
                raise
            except Exception as error:  # a hostile pickle may raise anything
                reason = str(error).split("\n")[0] or type(error).__name__
                raise self.bad(f"its pickle is damaged ({reason})") from error

    def text(self, record: str, default: str) -> str:
        name = f"{self.root}{record}"
        if name not in self.archive.namelist():
            return default
        return self.bytes_of(name)[:64].decode("ascii", "replace").strip()

    def bytes_of(self, name: str) -> bytes:
        try:
            info = self.archive.getinfo(name)
        except KeyError:
            raise self.bad(f"its record {name} is missing") from None
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise self.bad(f"its record {name} is compressed, which torch.save never does")
        return self.archive.read(info)

    def storage(self, reference: Any) -> _Storage:
        """What a persistent id refers to."""
        kind, dtype, key, _, count = reference
        plain = kind == "storage" and isinstance(key, str) and isinstance(count, int)
        if not plain or not isinstance(dtype, torch.dtype) or count < 0:
            raise self.bad("its pickle refers to something that is not a tensor's storage")
        return _Storage(dtype, f"{self.root}data/{key}", count)

    def tensor(
        self, storage: _Storage, offset: int, size: Sequence[int], stride: Sequence[int]
    ) -> Tensor:
        """A tensor on a storage; its elements must lie inside."""
        if not isinstance(storage, _Storage):
            raise self.bad("a tensor has no storage")
        numbers = [offset, *size, *stride]
        plain = all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in numbers)
        if not plain or len(size) != len(stride) or len(size) > LARGEST_RANK:
            raise self.bad(f"a tensor has size {tuple(size)} and stride {tuple(stride)}")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        elements = 1
        for n in size:
            elements *= n
        if elements and (last >= storage.count or elements > storage.count):
            raise self.bad(f"a tensor of size {tuple(size)} does not fit into {storage.record}")
        return self.flat(storage).as_strided(tuple(size), tuple(stride), offset).clone()

    def flat(self, storage: _Storage) -> Tensor:
        found = self.loaded.get(storage.record)
        if found is None:
            data = self.bytes_of(storage.record)
            if len(data) != storage.count * storage.dtype.itemsize:
                raise self.bad(
                    f"its record {storage.record} has {len(data)} bytes, "
                    f"its pickle says {storage.count * storage.dtype.itemsize}"
                )
            found = torch.frombuffer(bytearray(data), dtype=storage.dtype) if data else None
            found = torch.zeros(0, dtype=storage.dtype) if found is None else found
            self.loaded[storage.record] = found
        if found.dtype != storage.dtype:
            raise self.bad(f"two tensors of different types share {storage.record}")
        return found


def _unpickler(stream: BinaryIO | Any, reader: _Reader) -> pickle.Unpickler:
    """An unpickler that knows a handful of names.

    What it hands out is made anew for each file: a pickle may set attributes of what it names.
    """

    class Settings(dict[Any, Any]):
        """A configuration object as the dict that it is; its other state is dropped."""

        def __setstate__(self, state: object) -> None:
            """Nothing."""

    def encode(text: str, encoding: str = "latin1") -> bytes:
        """How protocol 2 writes bytes."""
        if encoding != "latin1":
            raise reader.bad(f"its pickle encodes bytes as {encoding!r}")
        return text.encode("latin1")

    def rebuild(
        storage: _Storage, offset: int, size: Sequence[int], stride: Sequence[int], *rest: object
    ) -> Tensor:
        return reader.tensor(storage, offset, size, stride)

    def parameter(data: Tensor, *rest: object) -> Tensor:
        return data

    known: dict[tuple[str, str], Any] = {
        ("collections", "OrderedDict"): OrderedDict,
        ("_codecs", "encode"): encode,
        ("torch._utils", "_rebuild_tensor_v2"): rebuild,
        ("torch._utils", "_rebuild_parameter"): parameter,
        **{("torch", name): dtype for name, dtype in DTYPES.items()},
    }

    class Restricted(pickle.Unpickler):
        """Refuses every name it does not know."""

        def find_class(self, module: str, name: str) -> Any:
            if (module, name) in known:
                return known[module, name]
            if module.split(".")[0] in CONFIGS and name.endswith("Config") and "." not in name:
                return Settings
            raise Refused(
                f"{reader.path} is refused: its pickle asks for {module}.{name}, "
                f"which a checkpoint of MILAN does not need",
                hint="nothing of it was run; do not load it with torch.load either",
            )

        def persistent_load(self, pid: Any) -> _Storage:
            return reader.storage(pid)

    return Restricted(stream)
