"""What a probe set is: a numbered list of images, read by number, from any thread."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING
from unicodedata import category

from milan_onnx.files import sha256_bytes
from milan_onnx.probe.decode import Unusable, decode

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
)

ENDINGS = tuple(sorted(SUFFIXES))

# Encoded bytes of one image; nothing larger is ever read into memory.
MAX_BYTES = 256 << 20


@dataclass(frozen=True)
class Loaded:
    """An image, ready to be framed."""

    image: Image.Image
    """RGB."""

    converted: str
    """What had to be changed to make it 8-bit RGB, or '' when nothing."""

    digest: str
    """SHA-256 of the bytes that were read, hexadecimal."""


class ProbeSet(ABC):
    """Images by number; the number (position in ``names``) is the image's id everywhere.

    ``read``, ``load`` and ``image`` may be called from several threads at once. They raise
    ``Unusable`` for an image that cannot be had.
    """

    name: str
    """For people: 'folder photos', 'built-in synthetic set'."""

    source: str
    """For the manifest: the path as it was given, or 'synthetic:1000:seed0'."""

    waits: bool = False
    """Whether reading waits for another machine: then more threads than processors are worth it."""

    streamed: bool = False
    """Whether images are cheap to read in their order only."""

    @property
    @abstractmethod
    def names(self) -> Sequence[str]:
        """Relative POSIX names; the index is the image id."""

    @abstractmethod
    def read(self, index: int) -> bytes:
        """The encoded bytes of an image (of a drawn one, its raw RGB pixels)."""

    def load(self, index: int) -> Loaded:
        """Decode one image."""
        data = self.read(index)
        decoded = decode(data)
        return Loaded(decoded.image, decoded.converted, sha256_bytes(data))

    def image(self, index: int) -> Image.Image:
        """One image as RGB."""
        return self.load(index).image

    def digest(self, index: int) -> str:
        """What tells an image from any other, found without decoding: SHA-256 of its bytes.

        Sets that know it in a cheaper way say that instead. Raises Unusable.
        """
        return sha256_bytes(self.read(index))

    def close(self) -> None:
        """Let go of open files. A closed set opens them again when it is read."""
        return None

    def __len__(self) -> int:
        return len(self.names)


class MadeProbe(ProbeSet):
    """Images that are made and not read from files: their bytes are raw RGB pixels."""

    @abstractmethod
    def image(self, index: int) -> Image.Image:
        """Make one image: RGB. Raises Unusable where it cannot be had."""

    def read(self, index: int) -> bytes:
        return self.image(index).tobytes()

    def load(self, index: int) -> Loaded:
        image = self.image(index)
        return Loaded(image, "", sha256_bytes(image.tobytes()))


class PickedProbe(ProbeSet):
    """Some images of another probe set."""

    def __init__(self, probe: ProbeSet, indices: Sequence[int], how: str) -> None:
        """``how`` they were picked, for people."""
        self._probe = probe
        self._indices = list(indices)
        self._names = [probe.names[i] for i in self._indices]
        self.name = f"{probe.name} ({len(self._indices)} of {len(probe)} images, {how})"
        self.source = probe.source
        self.waits, self.streamed = probe.waits, probe.streamed

    @property
    def names(self) -> Sequence[str]:
        return self._names

    def read(self, index: int) -> bytes:
        return self._probe.read(self._indices[index])

    def load(self, index: int) -> Loaded:
        return self._probe.load(self._indices[index])

    def digest(self, index: int) -> str:
        return self._probe.digest(self._indices[index])

    def close(self) -> None:
        self._probe.close()


def evenly(total: int, limit: int | None) -> list[int]:
    """At most ``limit`` of the numbers below ``total``, so that every subfolder has its share."""
    count = min(total, limit or total)
    return [i * total // count for i in range(count)]


class JoinedProbe(ProbeSet):
    """Several probe sets one after another (the shards of a WebDataset)."""

    def __init__(self, probes: Sequence[ProbeSet], prefixes: Sequence[str], source: str) -> None:
        """``prefixes`` go before the names of each set; '' before names that need none."""
        self._probes = list(probes)
        self._ends = list(accumulate(len(probe) for probe in self._probes))
        self._names = [
            f"{prefix}/{name}" if prefix else name
            for prefix, probe in zip(prefixes, self._probes, strict=True)
            for name in probe.names
        ]
        self.name = f"{len(self._probes)} shards {source}"
        self.source = source
        self.waits = any(probe.waits for probe in self._probes)
        self.streamed = any(probe.streamed for probe in self._probes)

    @property
    def names(self) -> Sequence[str]:
        return self._names

    def read(self, index: int) -> bytes:
        probe, inner = self._where(index)
        return probe.read(inner)

    def digest(self, index: int) -> str:
        probe, inner = self._where(index)
        return probe.digest(inner)

    def close(self) -> None:
        for probe in self._probes:
            probe.close()

    def _where(self, index: int) -> tuple[ProbeSet, int]:
        """The set that holds an image, and its number there."""
        place = bisect_right(self._ends, index)
        probe = self._probes[place]
        return probe, index - self._ends[place] + len(probe)


def is_image_name(name: str) -> bool:
    """Whether a relative POSIX name is one of a photo: known suffix, nothing hidden on the way."""
    parts = name.split("/")
    if any(part.startswith(".") or part == "__MACOSX" for part in parts):
        return False
    return parts[-1].lower().endswith(ENDINGS)


def clean_name(name: str) -> str:
    """A file name as printable text, whatever bytes the disk or the archive holds."""
    if name.isprintable():
        return name
    # Control characters could steer a terminal; lone surrogates cannot be written as UTF-8.
    return "".join("\ufffd" if category(char) in ("Cc", "Cs") else char for char in name)


def too_large(size: int) -> Unusable:
    """The reason for a file that is over ``MAX_BYTES``."""
    return Unusable(f"a file of {size >> 20} MiB is over the limit of {MAX_BYTES >> 20} MiB")
