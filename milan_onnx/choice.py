"""A value that was chosen for the user, and the reason: every automatic choice is printed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Choice(Generic[T]):
    """A value with the reason for it."""

    value: T
    """What was chosen."""

    reason: str
    """Why, in words that end the sentence 'chosen because …' or name the option that set it."""

    def __str__(self) -> str:
        return f"{self.value} ({self.reason})"
