"""What a client may ask of a run: every key checked, none unknown."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from milan_onnx.bundle import Strategy
from milan_onnx.describing import DescribeOptions
from milan_onnx.geometry import Interpolation
from milan_onnx.labels import ABSTAIN_BELOW
from milan_onnx.subject import Kind

LONGEST_PATH = 4096
LONGEST_NAME = 1000
MOST_VALUES = 4096
"""Numbers of an input that is no image."""

Side = Annotated[int, Field(ge=0, le=4096)]
Pair = Annotated[list[Annotated[int, Field(ge=1, le=4096)]], Field(min_length=2, max_length=2)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Three = Annotated[list[Finite], Field(min_length=3, max_length=3)]
Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class PreprocessingRequest(_Strict):
    """How photos become the model's input; what is left out is found as `describe` finds it."""

    resize: Side | Pair | None = Field(
        default=None, description="Shorter side, or [height, width]; 0: no"
    )
    crop: Annotated[int, Field(ge=1, le=4096)] | Pair | None = Field(
        default=None, description="Centre crop: the size of the model's input."
    )
    interpolation: Interpolation | None = Field(default=None, description="Of the resize.")
    mean: Finite | Three | None = Field(default=None, description="Subtracted after rescale.")
    std: Finite | Three | None = Field(default=None, description="Divided by after mean.")
    rescale: Finite | None = Field(default=None, description="Factor on pixels 0..255.")
    channel_order: Literal["RGB", "BGR"] | None = Field(
        default=None, description="Of the model's input."
    )


class OptionsRequest(_Strict):
    """The settings of `describe` that a client may set; names and meanings are its own."""

    exemplars: int = Field(default=15, ge=1, le=100, description="Exemplars a unit (paper: 15).")
    quantile: float = Field(
        default=0.99, gt=0, lt=1, description="Level of the threshold (paper: 0.99)."
    )
    beam_size: int | None = Field(default=None, ge=1, le=200, description="None: the bundle's.")
    pmi_weight: Finite | None = Field(default=None, description="λ; None: the bundle's.")
    strategy: Strategy | None = Field(default=None, description="None: the bundle's.")
    legacy: bool | None = Field(default=None, description="Repeat the quirks of the paper's code.")
    candidates: int = Field(default=5, ge=1, le=50, description="Descriptions kept a unit.")
    validity: bool | None = Field(default=None, description="Test labels on held-out photos.")
    validity_level: float = Field(
        default=0.2, gt=0, lt=1, description="Shuffled labels that may pass."
    )
    abstain_below: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description=f"Labels of less confidence abstain; None: {ABSTAIN_BELOW}.",
    )
    limit: int | None = Field(
        default=None, ge=1, le=10**9, description="Use only so many of the photos."
    )
    synthetic: int = Field(
        default=1000, ge=1, le=100_000, description="Images of the built-in set."
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="Seed of the built-in set.")
    batch_size: int | None = Field(default=None, ge=1, le=1024, description="Changes no result.")
    layout: Kind | None = Field(
        default=None, description="Axes of the layers, where the graph misleads."
    )
    preprocessing: PreprocessingRequest = Field(default_factory=PreprocessingRequest)
    inputs: dict[Name, Any] = Field(
        default_factory=dict,
        max_length=64,
        description="Value (a number or nested lists) of each input that is no image.",
    )

    @field_validator("inputs")
    @classmethod
    def _numbers_only(cls, inputs: dict[str, Any]) -> dict[str, Any]:
        for name, value in inputs.items():
            if _numbers(value, 8) > MOST_VALUES:
                raise ValueError(f"{name} has more than {MOST_VALUES} numbers")
        return inputs


class RunRequest(_Strict):
    """A run to make: of a model that the service can read, or of one that is uploaded."""

    model: str | None = Field(
        default=None,
        min_length=1,
        max_length=LONGEST_PATH,
        description="Path of an ONNX file in an allowed folder; None: it is uploaded.",
    )
    layers: list[Name] | None = Field(
        default=None,
        min_length=1,
        max_length=256,
        description="Names or globs; None: the deepest layer with positions.",
    )
    images: str | None = Field(
        default=None,
        min_length=1,
        max_length=LONGEST_PATH,
        description="Path of photos in an allowed folder; None: uploaded, or the built-in set.",
    )
    name: str | None = Field(
        default=None, min_length=1, max_length=200, description="What people call the run."
    )
    options: OptionsRequest = Field(default_factory=OptionsRequest)


def describe_options(request: OptionsRequest, device: str, threads: int) -> DescribeOptions:
    """The settings of `milan_onnx.describe`. Raises UsageError where they make no sense."""
    given = request.model_dump(exclude={"preprocessing"})
    preprocessing = request.preprocessing.model_dump(exclude_none=True)
    for name in ("resize", "crop"):
        if isinstance(preprocessing.get(name), list):
            preprocessing[name] = tuple(preprocessing[name])
    options = DescribeOptions(
        **given, preprocessing=preprocessing, device=device, threads=threads, report=True
    )
    options.check()
    return options


def display_name(request: RunRequest, uploaded: str | None) -> str:
    """What people call the run: as they said, or the model's file."""
    return request.name or Path(request.model or uploaded or "model").name


def _numbers(value: object, depth: int) -> int:
    """How many numbers nested lists hold. Raises ValueError for anything else in them."""
    if isinstance(value, list) and depth:
        return sum(_numbers(inner, depth - 1) for inner in value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("a value is a number, or nested lists of numbers")
    return 1
