"""The state of a statistic: named arrays, from which it goes on here or is merged elsewhere.

A state may come from a file, so what does not fit the statistic that loads it is a ValueError.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]
State = Mapping[str, NDArray[Any]]
T = TypeVar("T", bound=np.generic)


def fitting(state: State, name: str, like: NDArray[T]) -> NDArray[T]:
    """A copy of one array, which must be of the same shape and type as another."""
    return _like(state, name, like, like.shape)


def filling(state: State, name: str, like: NDArray[T]) -> NDArray[T]:
    """One array, which may be shorter than another and must else be like it."""
    length = min(len(np.atleast_1d(state[name])), len(like))
    return _like(state, name, like, (length, *like.shape[1:]))


def flat(state: State, name: str, length: int) -> NDArray[np.int64]:
    """One array of so many whole numbers."""
    return _like(state, name, np.empty(0, np.int64), (length,))


def number(state: State, name: str) -> int:
    """One whole number, at least zero."""
    value = int(flat(state, name, 1)[0])
    if value < 0:
        raise ValueError(f"{name} is {value}")
    return value


def within(prefix: str, state: State) -> Arrays:
    """The same arrays under longer names."""
    return {f"{prefix}.{name}": array for name, array in state.items()}


def part(prefix: str, state: State) -> Arrays:
    """The arrays that `within` put there, under their own names."""
    start = len(prefix) + 1
    return {n[start:]: array for n, array in state.items() if n.startswith(f"{prefix}.")}


def _like(state: State, name: str, like: NDArray[T], shape: tuple[int, ...]) -> NDArray[T]:
    if name not in state:
        raise ValueError(f"it has no {name}")
    array = state[name]
    if array.shape != shape or array.dtype != like.dtype:
        raise ValueError(f"{name} is {array.dtype} {array.shape}, not {like.dtype} {shape}")
    return np.array(array)
