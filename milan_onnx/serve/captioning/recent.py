"""What was used last, within so many bytes."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """Something that takes memory."""

    @property
    def nbytes(self) -> int:
        """How much."""


V = TypeVar("V", bound=Sized)


class Recent(Generic[V]):
    """Values by key; what was used longest ago goes first. For several threads."""

    def __init__(self, limit: int) -> None:
        """``limit``: bytes of all values together."""
        self.limit, self._bytes = limit, 0
        self._held: OrderedDict[bytes, V] = OrderedDict()
        self._lock = Lock()

    def get(self, key: bytes) -> V | None:
        """The value, where it is still there."""
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
            return self._held.get(key)

    def put(self, key: bytes, value: V) -> None:
        """Keep a value, unless it is larger than all that may be kept."""
        if value.nbytes > self.limit:
            return
        with self._lock:
            if key in self._held:
                return
            self._held[key] = value
            self._bytes += value.nbytes
            while self._bytes > self.limit:
                _, gone = self._held.popitem(last=False)
                self._bytes -= gone.nbytes
