"""How photos become the subject's input, and where each part of that was found."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args

from milan_onnx.choice import Choice
from milan_onnx.errors import SubjectError, UsageError
from milan_onnx.geometry import Geometry, Interpolation
from milan_onnx.subject.model import Subject

ChannelOrder = Literal["RGB", "BGR"]
Triple = tuple[float, float, float]
Resize = int | tuple[int, int]
Size = int | tuple[int, int]

IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
DEFAULT_SIDE = 224
LARGEST_SIDE = 1 << 15
METADATA_KEY = "milan_onnx.preprocessing"
CONFIG_NAME = "preprocessor_config.json"

# Pillow's numbers, as Hugging Face writes them.
RESAMPLE: Mapping[int, Interpolation] = {
    0: "nearest",
    1: "lanczos",
    2: "bilinear",
    3: "bicubic",
}

T = TypeVar("T")


@dataclass(frozen=True)
class Preprocessing:
    """From an RGB photo to the values of the subject's input."""

    geometry: Geometry
    """Photo to frame: resize and centre crop on uint8."""

    mean: Triple
    """Subtracted after rescaling; in the order of ``channel_order``."""

    std: Triple
    """Divided by after the mean; in the order of ``channel_order``."""

    rescale: float
    """Factor on the pixel values 0 to 255."""

    channel_order: ChannelOrder = "RGB"
    """The order in which the subject takes the channels."""


@dataclass
class _Found:
    """Parts of the answer, each with its source; the first to set a part keeps it."""

    parts: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)

    def offer(self, name: str, value: Any, source: str) -> None:
        if value is not None and name not in self.parts:
            self.parts[name] = value
            self.sources[name] = source

    def get(self, name: str, default: T) -> T:
        return cast(T, self.parts.get(name, default))

    def reason(self) -> str:
        """Which source gave what, in the order in which they were asked."""
        by_source: dict[str, list[str]] = {}
        for name, source in self.sources.items():
            by_source.setdefault(source, []).append(name.replace("_", " "))
        clauses = (f"{source} gave {_listed(names)}" for source, names in by_source.items())
        return "; ".join(clauses)


def choose_preprocessing(
    subject: Subject,
    *,
    resize: Resize | None = None,
    crop: Size | None = None,
    interpolation: Interpolation | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    rescale: float | None = None,
    channel_order: ChannelOrder | None = None,
) -> Choice[Preprocessing]:
    """The subject's preprocessing, and which source gave which part.

    Each part comes from the first of: the arguments, ``preprocessor_config.json`` beside the
    model, the model's metadata (``milan_onnx.preprocessing`` in the same form, or plain ``mean``,
    ``std`` and ``image_size``), the input's type and shape. ``resize=0`` means no resize. Raises
    UsageError for impossible arguments, SubjectError for unreadable or contradicting files.
    """
    found = _Found()
    arguments = {
        "resize": resize,
        "crop": _pair(crop) if crop is not None else None,
        "interpolation": interpolation,
        "mean": mean,
        "std": std,
        "rescale": rescale,
        "channel_order": channel_order,
    }
    _check_arguments(arguments)
    for name, value in arguments.items():
        spread = _triple(name, value, UsageError) if name in ("mean", "std") else value
        found.offer(name, spread, f"--{name.replace('_', '-')}")
    if arguments["crop"] is not None:
        # A configured resize belongs to the configured frame.
        found.offer("resize", _default_resize(max(found.parts["crop"])), "--crop")
    for source, config in _configs(subject):
        for name, value in _from_config(config, source, subject).items():
            found.offer(name, value, source)
    _from_plain_metadata(subject, found)
    _from_input(subject, found)
    return Choice(_assemble(subject, found), found.reason())


def _check_arguments(arguments: Mapping[str, Any]) -> None:
    resize, crop = arguments["resize"], arguments["crop"]
    sizes = [*(_pair(resize) if resize is not None else ()), *(crop or (1,))]
    if min(sizes) < 0 or (crop and min(crop) < 1):
        raise UsageError("sizes must be positive", hint="check --resize and --crop")
    for name, values in (("interpolation", Interpolation), ("channel_order", ChannelOrder)):
        if arguments[name] is not None and arguments[name] not in get_args(values):
            raise UsageError(
                f"unknown {name.replace('_', ' ')} {arguments[name]}",
                hint=f"choose {', '.join(get_args(values))}",
            )


def _pair(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _triple(name: str, value: Any, error: Callable[..., Exception]) -> Triple | None:
    """One number for all channels, or one each."""
    if value is None:
        return None
    try:
        numbers = [float(number) for number in (value if isinstance(value, Sequence) else [value])]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3 or (name == "std" and min(numbers) <= 0):
        raise error(f"{name} is {value}", hint="give one number, or one for each of three channels")
    return (numbers[0], numbers[1], numbers[2])


# --- Hugging Face form --------------------------------------------------------------------------


def _configs(subject: Subject) -> Iterator[tuple[str, dict[str, Any]]]:
    """The configurations in the Hugging Face form, by source."""
    path = subject.path.parent / CONFIG_NAME
    if path.is_file():
        yield CONFIG_NAME, _parsed(_text(path), str(path))
    if METADATA_KEY in subject.metadata:
        source = f"the model's metadata ({METADATA_KEY})"
        yield source, _parsed(subject.metadata[METADATA_KEY], source)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SubjectError(f"cannot read {path}", hint="mend or remove it") from error


def _parsed(text: str, source: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SubjectError(f"{source} is not valid JSON", hint="mend or remove it") from error
    if not isinstance(value, dict):
        raise SubjectError(f"{source} holds no JSON object", hint="mend or remove it")
    return value


def _from_config(config: Mapping[str, Any], source: str, subject: Subject) -> dict[str, Any]:
    try:
        return {**_config_geometry(config, subject), **_config_values(config, source)}
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise SubjectError(
            f"{source} has an entry that cannot be used ({error})", hint="mend or remove it"
        ) from error


def _config_values(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if not config.get("do_rescale", True):
        found["rescale"] = 1.0
    elif "do_rescale" in config or "rescale_factor" in config or "image_mean" in config:
        found["rescale"] = float(config.get("rescale_factor", 1 / 255))
    if not config.get("do_normalize", True):
        found["mean"], found["std"] = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    else:
        error = _source_error(source)
        found["mean"] = _triple("mean", config.get("image_mean"), error)
        found["std"] = _triple("std", config.get("image_std"), error)
    if config.get("do_flip_channel_order"):
        found["channel_order"] = "BGR"
    return found


def _source_error(source: str) -> Callable[..., SubjectError]:
    return lambda message, hint: SubjectError(f"in {source} {message}", hint=hint)


def _config_geometry(config: Mapping[str, Any], subject: Subject) -> dict[str, Any]:
    size = config.get("size") if config.get("do_resize", True) else None
    cropped = config.get("crop_size") if config.get("do_center_crop") else None
    crop = _config_size(cropped) if cropped is not None else None
    found: dict[str, Any] = {"crop": _pair(crop) if crop else None}
    if config.get("resample") in RESAMPLE:
        found["interpolation"] = RESAMPLE[config["resample"]]
    if size is None:
        found["resize"] = 0 if "do_resize" in config else None
        return found
    resize = _config_size(size)
    # An integer meant the exact size where nothing is cropped, the shorter side where it is.
    if isinstance(size, int) and crop is None:
        resize = (size, size)
    if crop is None:
        resize, found["crop"] = _without_crop(config, resize, subject)
    found["resize"] = resize
    return found


def _without_crop(
    config: Mapping[str, Any], resize: Resize, subject: Subject
) -> tuple[Resize, tuple[int, int]]:
    """Resize and frame where the configuration has no centre crop."""
    image = subject.input
    if not isinstance(resize, int):
        return resize, resize
    ratio = config.get("crop_pct")
    if ratio:
        # ConvNeXt: below 384 the photo is resized larger and cropped, from there on squashed.
        exact: Resize = (resize, resize)
        return (int(resize / float(ratio)) if resize < 384 else exact), (resize, resize)
    return resize, (image.height or resize, image.width or resize)


def _config_size(size: Any) -> Resize:
    """``224``, ``{"shortest_edge": 224}`` or ``{"height": 224, "width": 224}``."""
    if isinstance(size, Mapping):
        if "shortest_edge" in size:
            return _side(size["shortest_edge"])
        return _side(size["height"]), _side(size["width"])
    if isinstance(size, Sequence) and not isinstance(size, str):
        return _side(size[0]), _side(size[1])
    return _side(size)


def _side(value: Any) -> int:
    """A number of pixels that can be the side of an image."""
    if isinstance(value, bool) or int(value) != value or not 0 < value < LARGEST_SIDE:
        raise ValueError(f"{value!r} is no side of an image")
    return int(value)


# --- plain metadata, and the input itself -------------------------------------------------------


def _from_plain_metadata(subject: Subject, found: _Found) -> None:
    source = "the model's metadata"
    for name in ("mean", "std"):
        if name in subject.metadata:
            value = _numbers(name, subject.metadata[name])
            found.offer(name, _triple(name, value, _source_error(source)), source)
    if "image_size" in subject.metadata:
        size = [int(number) for number in _numbers("image_size", subject.metadata["image_size"])]
        if len(size) in (1, 2) and min(size) > 0 and max(size) < LARGEST_SIDE:
            found.offer("crop", (size[0], size[-1]), source)


def _numbers(name: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.strip(" []()").split(",")]
    except ValueError as error:
        raise SubjectError(
            f"the model's metadata has {name}={text}", hint="numbers with commas are wanted"
        ) from error


def _from_input(subject: Subject, found: _Found) -> None:
    image = subject.input
    fixed = image.height is not None and image.width is not None
    sized = f"the input's shape ({image.height}x{image.width})"
    free = f"the usual size, as the model leaves height and width free ({DEFAULT_SIDE}),"
    frame = (image.height or DEFAULT_SIDE, image.width or DEFAULT_SIDE)
    found.offer("crop", frame, sized if fixed else free)
    height, width = found.parts["crop"]
    found.offer("resize", _default_resize(max(height, width)), "the size of the frame")
    if image.dtype == "uint8":
        source = "the input's type (uint8, pixels as they are)"
        mean, std, rescale = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1.0
    elif image.channels == 1:
        source = "the input's type (one float channel, 0 to 1)"
        mean, std, rescale = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1 / 255
    else:
        source = f"the input's type ({image.dtype}, as ImageNet models take it)"
        mean, std, rescale = IMAGENET_MEAN, IMAGENET_STD, 1 / 255
    if max(found.get("mean", mean)) > 2:
        found.offer("rescale", 1.0, "a mean in pixel values")
    for name, value in (("mean", mean), ("std", std), ("rescale", rescale)):
        found.offer(name, value, source)


def _default_resize(side: int) -> int:
    """256 for 224, in proportion; small inputs (CIFAR, digits) are not cropped."""
    return side if side <= 64 else round(side * 256 / 224)


def _assemble(subject: Subject, found: _Found) -> Preprocessing:
    parts = found.parts
    _check_frame(subject, parts["crop"], found.sources["crop"])
    return Preprocessing(
        geometry=Geometry(
            crop=parts["crop"],
            resize=parts["resize"] or None,
            interpolation=found.get("interpolation", "bilinear"),
        ),
        mean=parts["mean"],
        std=parts["std"],
        rescale=float(parts["rescale"]),
        channel_order=found.get("channel_order", "RGB"),
    )


def _check_frame(subject: Subject, crop: tuple[int, int], source: str) -> None:
    image = subject.input
    wanted = (image.height or crop[0], image.width or crop[1])
    if crop != wanted:
        error = UsageError if source.startswith("--") else SubjectError
        raise error(
            f"{source} asks for {crop[0]}x{crop[1]}, but the model takes {wanted[0]}x{wanted[1]}",
            hint=f"use --crop {wanted[0]},{wanted[1]}",
        )


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
