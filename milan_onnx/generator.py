"""The images that a generator makes of its latents, made again whenever they are looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from milan_onnx.choice import Choice
from milan_onnx.errors import RunError, SubjectError, UsageError
from milan_onnx.files import sha256_bytes, sha256_file
from milan_onnx.probe import Loaded, MadeProbe, ProbeSet
from milan_onnx.runtime import Device, Session
from milan_onnx.subject import (
    PIXEL,
    Layer,
    Subject,
    list_layers,
    load_generator,
    read_latents,
    resolve,
    tap,
    with_layout,
)

if TYPE_CHECKING:
    from PIL import Image

Floats = NDArray[np.float32]

RANGES = {"-1,1": (-1.0, 1.0), "0,1": (0.0, 1.0), "0,255": (0.0, 255.0)}
"""What black and white are in the generator's output."""
CHANNELS = (1, 3)
"""Of grey and coloured images."""
LOOKED_AT = 16
"""Images that the range is told from."""


@dataclass(frozen=True)
class GeneratorFiles:
    """What makes images: a run records it, and finds its images again by it."""

    model: Path
    """The generator."""

    latents: Path
    """.npy, a row an image."""

    classes: Path | None
    """.npy, a number or a row an image; None: the generator takes none."""

    limit: int | None
    """Use only so many, evenly spaced; None: all."""

    inputs: Mapping[str, Any]
    """Values of the generator's other inputs."""

    def load(self) -> tuple[Subject, LatentNumbers]:
        """The generator, and its latents by number. Raises SubjectError or BadInput."""
        rows = [read_latents(self.latents)]
        rows += [read_latents(self.classes, "classes")] if self.classes else []
        subject = load_generator(self.model, *rows, fixed_inputs=self.inputs)
        return subject, LatentNumbers(self.latents, rows, self.limit)

    def record(self) -> dict[str, Any]:
        """What a run's manifest holds of it: paths and hashes."""
        return {
            "latents": str(self.latents),
            "latents_sha256": sha256_file(self.latents),
            "classes": str(self.classes) if self.classes else None,
            "classes_sha256": sha256_file(self.classes) if self.classes else None,
        }

    @staticmethod
    def recorded(manifest: Mapping[str, Any]) -> GeneratorFiles:
        """That of a run. Raises RunError where files have moved or are others."""
        held, environment = manifest["environment"]["generator"], manifest["environment"]
        options = manifest["options"]
        classes = Path(held["classes"]) if held["classes"] else None
        wanted = [
            (Path(environment["model_path"]), manifest["model"]["sha256"], "generator"),
            (Path(held["latents"]), held["latents_sha256"], "latents"),
            *([(classes, held["classes_sha256"], "classes")] if classes else []),
        ]
        for path, digest, what in wanted:
            if not path.is_file():
                raise RunError(
                    f"the {what} of this run are not at {path}",
                    hint="put them back, or describe again",
                )
            # A generator with weights in other files has a hash of all; loading checks those.
            if what != "generator" and sha256_file(path) != digest:
                raise RunError(f"{path} holds other {what} than this run's", hint="describe again")
        return GeneratorFiles(
            wanted[0][0], wanted[1][0], classes, options["limit"], options["inputs"]
        )


def recorded_images(manifest: Mapping[str, Any]) -> GeneratedImages:
    """The images of a run of a generator. Raises RunError where its files have changed."""
    subject, latents = GeneratorFiles.recorded(manifest).load()
    if subject.sha256 != manifest["model"]["sha256"]:
        raise RunError(
            f"{subject.path} is another generator than this run's", hint="describe again"
        )
    held = manifest["environment"]["generator"]
    return GeneratedImages(latents, subject, held["image_output"], RANGES[held["image_range"]])


class LatentNumbers(ProbeSet):
    """Latents as a scan reads them: each a pixel whose colour is its number."""

    def __init__(self, path: Path, rows: Sequence[NDArray[Any]], limit: int | None = None) -> None:
        """``rows``: the tables (N, ...) that tell an image, latents first."""
        total = len(rows[0])
        count = min(limit or total, total)
        self._rows = rows
        self._numbers = [i * total // count for i in range(count)]
        self._names = [f"latent {number}" for number in self._numbers]
        self.name = f"latents {path}"
        self.source = str(path)

    @property
    def names(self) -> Sequence[str]:
        return self._names

    def number(self, index: int) -> int:
        """The row of an image."""
        return self._numbers[index]

    def read(self, index: int) -> bytes:
        return b"".join(np.ascontiguousarray(r[self._numbers[index]]).tobytes() for r in self._rows)

    def load(self, index: int) -> Loaded:
        from PIL import Image

        image = Image.fromarray(pixel(self._numbers[index]))
        return Loaded(image, "", sha256_bytes(self.read(index)))


class GeneratedImages(MadeProbe):
    """The images of latents."""

    def __init__(
        self, latents: LatentNumbers, subject: Subject, output: str, bounds: tuple[float, float]
    ) -> None:
        """``output``: the graph's output that holds images; ``bounds``: black and white there.

        Raises SubjectError where that holds no images.
        """
        self.latents, self.name, self.source = latents, latents.name, latents.source
        self.output = output
        self._black, self._white = bounds
        self._output = ImageOutput(subject, output)

    @property
    def names(self) -> Sequence[str]:
        return self.latents.names

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the images."""
        height, width = self._output.image(self.latents.number(0)).shape[:2]
        return height, width

    def image(self, index: int) -> Image.Image:
        from PIL import Image

        values = self._output.image(self.latents.number(index)).astype(np.float64)
        shares = (values - self._black) / (self._white - self._black)
        return Image.fromarray(np.rint(255 * shares.clip(0, 1)).astype(np.uint8))


class ImageOutput:
    """A generator's output, image by image."""

    def __init__(self, subject: Subject, output: str) -> None:
        """Raises SubjectError where the tensor holds no images."""
        layer = _image_layer(subject, output)
        cut = tap(subject, [layer], PIXEL, batch=subject.input.batch)
        self._batch = cut.batch or 2
        self._session = Session(
            cut.model_bytes,
            Device("cpu"),
            what=str(subject.path),
            error=SubjectError,
            external_folder=cut.external_folder,
        )
        self._input = cut.input_name

    def image(self, number: int) -> Floats:
        """The image of a row (H, W, 3), as the generator gives it.

        It is always made among copies of itself: so its last bits depend on nothing else.
        """
        pixels = np.repeat(pixel(number)[None], self._batch, axis=0)
        found = self._session.run({self._input: pixels})[0][0].transpose(1, 2, 0)
        return np.asarray(np.broadcast_to(found, (*found.shape[:2], 3)), np.float32)


def _image_layer(subject: Subject, name: str) -> Layer:
    layer = resolve(subject, name).layer
    if len(layer.shape) == 4:
        if layer.shape[1] in CHANNELS:
            return with_layout(layer, "channels_first")
        if layer.shape[3] in CHANNELS:
            return with_layout(layer, "channels_last")
    raise SubjectError(
        f"{name} is no image: it is of shape {layer.shape}",
        hint="name the tensor of images with --image-output",
    )


def choose_image_output(subject: Subject, wanted: str | None) -> Choice[str]:
    """The tensor that holds the images: as wanted, or the only output that can be one.

    Raises SubjectError where there is none, or several.
    """
    if wanted is not None:
        return Choice(_image_layer(subject, wanted).tensor, "--image-output")
    outputs = [output.name for output in subject.model.graph.output]
    layers = [layer for layer in list_layers(subject) if layer.tensor in outputs]
    found = [
        layer.tensor
        for layer in layers
        if len(layer.shape) == 4 and {layer.shape[1], layer.shape[3]} & set(CHANNELS)
    ]
    if len(found) != 1:
        what = "no output of images" if not found else f"several: {', '.join(found)}"
        raise SubjectError(
            f"{subject.path} has {what}; its outputs are {', '.join(outputs)}",
            hint="name the tensor of images with --image-output",
        )
    return Choice(found[0], "the only output of images; --image-output names another")


def choose_range(subject: Subject, output: str, count: int, wanted: str | None) -> Choice[str]:
    """What black and white are: as wanted, or told from some images of ``count`` latents.

    Raises UsageError for an unknown range.
    """
    if wanted is not None:
        if wanted not in RANGES:
            raise UsageError(
                f"no range of images is {wanted}", hint=f"give one of {'; '.join(RANGES)}"
            )
        return Choice(wanted, "--image-range")
    images = ImageOutput(subject, output)
    values = [images.image(number) for number in range(min(count, LOOKED_AT))]
    low, high = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
    found = "-1,1" if low < 0 else "0,1" if high <= 1 else "0,255"
    return Choice(
        found, f"{len(values)} images hold {low:.3g} to {high:.3g}; --image-range sets it"
    )


def pixel(number: int) -> NDArray[np.uint8]:
    """A number as a picture of one pixel (1, 1, 3)."""
    return np.array([[[number & 255, number >> 8 & 255, number >> 16 & 255]]], np.uint8)
