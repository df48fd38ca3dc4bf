"""Option texts to values. Every refusal names the option and the form it takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, get_args

from milan_onnx.describing import Shard
from milan_onnx.errors import UsageError
from milan_onnx.subject import Kind


def parse_preprocessing(
    resize: str | None,
    crop: str | None,
    interpolation: str | None,
    mean: str | None,
    std: str | None,
    rescale: float | None,
    channel_order: str | None,
) -> dict[str, Any]:
    """Keyword arguments of `milan_onnx.subject.choose_preprocessing`, of what was given."""
    given = {
        "resize": None if resize is None else _size("--resize", resize),
        "crop": None if crop is None else _size("--crop", crop),
        "interpolation": interpolation,
        "mean": None if mean is None else _numbers("--mean", mean),
        "std": None if std is None else _numbers("--std", std),
        "rescale": rescale,
        "channel_order": channel_order,
    }
    return {name: value for name, value in given.items() if value is not None}


def parse_inputs(texts: Sequence[str]) -> dict[str, Any]:
    """``NAME=VALUE`` pairs; a value is a number or a JSON list of numbers."""
    inputs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        try:
            inputs[name] = json.loads(value)
        except ValueError:
            equals = ""
        if not equals or not name or isinstance(inputs.get(name), str | dict | None):
            raise UsageError(
                f"--input {text} is not NAME=VALUE", hint="a value is a number or [1, 2, 3]"
            )
    return inputs


def parse_layout(text: str | None) -> Kind | None:
    """One of the layouts of a layer."""
    if text is None:
        return None
    kinds: tuple[Kind, ...] = get_args(Kind)
    for kind in kinds:
        if kind == text:
            return kind
    raise UsageError(f"unknown --layout {text}", hint=f"use one of {', '.join(kinds)}")


def parse_share(option: str, text: str | None) -> float | None:
    """A share of something, ``2%`` or ``0.02``, as 0.02."""
    if text is None:
        return None
    number = text.strip()
    try:
        share = float(number.removesuffix("%")) / (100 if number.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise UsageError(f"{option} {text} is not a share", hint="write 2% or 0.02")
    return share


def _size(option: str, text: str) -> int | tuple[int, int]:
    parts = text.lower().split("x")
    if not all(part.isdigit() for part in parts) or len(parts) > 2:
        raise UsageError(f"{option} {text} is not a size", hint="use N or HxW, in pixels")
    numbers = [int(part) for part in parts]
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def _numbers(option: str, text: str) -> list[float] | float:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 3):
        raise UsageError(f"{option} {text} is not R,G,B", hint="use one number or three")
    return numbers[0] if len(numbers) == 1 else numbers


def parse_shard(text: str) -> Shard:
    """``I/N``: the I-th of N parts."""
    number, _, of = text.partition("/")
    if not (number.isascii() and number.isdigit() and of.isascii() and of.isdigit()):
        raise UsageError(f"--shard {text} is not I/N", hint="as in --shard 2/5")
    return Shard(int(number), int(of))
