"""Who is let in, and the units that wait for the captioner.

Admission is decided when it is known how many units a request has, before an image of it is
decoded, and it counts what is still being decoded. So who is let in is answered: those before it
are at most ``queue`` units, and at the rate measured so far they take at most half of ``timeout``.
Who is not is told when to come again.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Condition
from time import monotonic

from milan_onnx.serve.captioning.engine import Answer, Unit
from milan_onnx.serve.errors import Refusal, too_much
from milan_onnx.serve.settings import ServeSettings

MEMORY = 0.8
"""How much of what was measured before a batch still counts after it."""
TYPICAL = 4
"""Units that a batch of a full line has at least."""
SHARE = 0.5
"""Of the time to answer, that may go by in the line."""


def stopping() -> Refusal:
    """What is answered at the end."""
    headers = {"Retry-After": "5"}
    return Refusal(503, "the service is being stopped", hint="try again", headers=headers)


class Pace:
    """How long units and exemplars take, by the last batches."""

    def __init__(self) -> None:
        self._units = self._searching = self._exemplars = self._encoding = 0.0

    def learn(self, units: int, searching: float, exemplars: int, encoding: float) -> None:
        """A batch was done, in so many seconds."""
        self._units = self._units * MEMORY + units
        self._searching = self._searching * MEMORY + searching
        self._exemplars = self._exemplars * MEMORY + exemplars
        self._encoding = self._encoding * MEMORY + encoding

    def seconds(self, units: int, exemplars: int) -> float:
        """What so many would take."""
        search = self._searching / self._units if self._units else 0.0
        encode = self._encoding / self._exemplars if self._exemplars else 0.0
        return units * search + exemplars * encode


@dataclass
class Ticket:
    """A request that was let in."""

    units: int
    """Units of it that no batch has taken."""

    exemplars: int
    """Their exemplars."""

    until: float
    """When its time is up, by the monotonic clock."""

    answers: list[Answer | None] = field(default_factory=list)
    """Of each unit."""

    deliver: Callable[[Sequence[Answer] | Exception], None] = lambda found: None
    """Given the answers of all units, or what went wrong; called once, in any thread."""

    joined: bool = False
    """Whether its units are in the line, or will never be."""

    gone: bool = False
    """Whether nobody waits for it any more."""


@dataclass(frozen=True)
class Place:
    """A unit that waits."""

    ticket: Ticket
    """The request it is of."""

    index: int
    """Which of its units."""

    unit: Unit
    """What is asked."""


class Line:
    """Units of all requests, in the order in which they came."""

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._pace = Pace()
        self._units = self._exemplars = self._coming = self._working = 0
        self._waiting: deque[Place] = deque()
        self._changed = Condition()
        self._closed = False

    @property
    def units(self) -> int:
        """Units let in that no batch has taken."""
        return self._units

    def look(self) -> None:
        """Raise Refusal (429) where there is no room for anybody."""
        with self._changed:
            self._admissible(1, 1)

    def admit(self, units: int, exemplars: int) -> Ticket:
        """Let a request in. Raises Refusal: 429 where there is no room for it, 503 at the end."""
        with self._changed:
            if self._closed:
                raise stopping()
            self._admissible(units, exemplars)
            self._units += units
            self._exemplars += exemplars
            self._coming += 1
        return Ticket(units, exemplars, monotonic() + self._settings.timeout)

    def join(
        self,
        ticket: Ticket,
        units: Sequence[Unit],
        deliver: Callable[[Sequence[Answer] | Exception], None],
    ) -> None:
        """Put a request's units at the end; ``deliver``: see `Ticket`."""
        ticket.answers, ticket.deliver = [None] * len(units), deliver
        with self._changed:
            self._coming -= 1
            ticket.joined = True
            if not self._closed:
                self._waiting.extend(Place(ticket, i, unit) for i, unit in enumerate(units))
                self._changed.notify_all()
                return
        deliver(stopping())

    def leave(self, ticket: Ticket) -> int:
        """A request is over, however it ended; how many of its units still waited for a batch."""
        with self._changed:
            ticket.gone, left = True, ticket.units if ticket.joined else 0
            if not ticket.joined:
                ticket.joined = True
                self._coming -= 1
            if ticket.units:
                self._waiting = deque(p for p in self._waiting if p.ticket is not ticket)
            self._forget(ticket.units, ticket.exemplars)
            ticket.units = ticket.exemplars = 0
            self._changed.notify_all()
        return left

    def take(self) -> list[Place]:
        """The next batch, for the thread that works; empty when the line is closed.

        Takes what is there, and while others are on their way waits for them, at most ``wait_ms``.
        """
        with self._changed:
            self._working = 0
            while not self._closed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                self._wait_for_others()
                if self._waiting:  # they may have gone meanwhile
                    return self._taken()
            return []

    def learn(self, units: int, searching: float, exemplars: int, encoding: float) -> None:
        """What a batch took: see `Pace`. Small ones say little about those of a full line."""
        if units >= min(TYPICAL, self._settings.batch):
            with self._changed:
                self._pace.learn(units, searching, exemplars, encoding)

    def close(self) -> list[Place]:
        """Let nobody in and wake the thread that works; returns who still waited."""
        with self._changed:
            self._closed = True
            left = list(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()
        return left

    def _wait_for_others(self) -> None:
        until = monotonic() + self._settings.wait_ms / 1000
        while self._coming and len(self._waiting) < self._settings.batch and not self._closed:
            left = until - monotonic()
            if left <= 0 or not self._changed.wait(left):
                return

    def _taken(self) -> list[Place]:
        batch: list[Place] = []
        while self._waiting and not self._full(batch):
            place = self._waiting.popleft()
            place.ticket.units -= 1
            exemplars = len(place.unit.regions)
            place.ticket.exemplars -= exemplars
            self._forget(1, exemplars)
            batch.append(place)
        self._working = len(batch)
        return batch

    def _full(self, batch: Sequence[Place]) -> bool:
        """Whether the next one must wait; a request that is ranked as a whole stays together."""
        if len(batch) < self._settings.batch:
            return False
        unit = self._waiting[0].unit
        return not (unit.together and unit.request == batch[-1].unit.request)

    def _forget(self, units: int, exemplars: int) -> None:
        self._units -= units
        self._exemplars -= exemplars

    def _admissible(self, units: int, exemplars: int) -> None:
        before = self._pace.seconds(self._units + self._working, self._exemplars)
        long = before + self._pace.seconds(units, exemplars) > self._settings.timeout * SHARE
        images = self._exemplars + exemplars > self._settings.queue_images
        if self._units + units > self._settings.queue or images or (long and self._units):
            what = f"{self._units} units with {self._exemplars} exemplars wait already"
            raise too_much(what, max(1, math.ceil(before)))
