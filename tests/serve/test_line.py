"""Who is let in, in which batches units leave, and what is told to who is not."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from milan_onnx.bundle import SearchDefaults
from milan_onnx.serve.captioning.engine import Answer, Describe, Region, Unit
from milan_onnx.serve.captioning.line import Line, Place, Ticket
from milan_onnx.serve.errors import Refusal
from milan_onnx.serve.settings import ServeSettings

NOTHING = np.zeros(0, np.uint8)
REGION = Region(b"", NOTHING, NOTHING)


def line_of(**given: Any) -> Line:
    few = {"queue": 10, "max_units": 4, "queue_images": 40, "max_images": 20, "wait_ms": 0.0}
    return Line(ServeSettings(**{**few, **given}))


def units(count: int, request: int = 0, legacy: bool = False) -> list[Unit]:
    task = Describe(SearchDefaults(legacy=legacy), 1)
    return [Unit((REGION,) * 2, task, request) for _ in range(count)]


def nobody(found: Sequence[Answer] | Exception) -> None:
    pass


def enter(line: Line, count: int, **given: Any) -> Ticket:
    ticket = line.admit(count, 2 * count)
    line.join(ticket, units(count, **given), nobody)
    return ticket


def refused(line: Line, count: int, exemplars: int | None = None) -> int:
    """The seconds after which to come again."""
    with pytest.raises(Refusal) as caught:
        line.admit(count, 2 * count if exemplars is None else exemplars)
    assert caught.value.status_code == 429
    assert caught.value.headers is not None
    return int(caught.value.headers["Retry-After"])


def numbers(batch: Sequence[Place]) -> list[tuple[object, int]]:
    return [(place.unit.request, place.index) for place in batch]


def test_units_leave_in_the_order_they_came_in_batches() -> None:
    line = line_of(batch=4)
    enter(line, 3, request=1)
    enter(line, 3, request=2)
    assert line.units == 6
    assert numbers(line.take()) == [(1, 0), (1, 1), (1, 2), (2, 0)]
    assert line.units == 2
    assert numbers(line.take()) == [(2, 1), (2, 2)]


def test_a_request_that_is_ranked_as_a_whole_stays_together() -> None:
    line = line_of(batch=2)
    enter(line, 3, request=1, legacy=True)
    enter(line, 3, request=2, legacy=True)
    assert numbers(line.take()) == [(1, 0), (1, 1), (1, 2)]
    line = line_of(batch=4)
    enter(line, 3, request=1, legacy=True)
    enter(line, 3, request=2, legacy=True)
    assert numbers(line.take()) == [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]


def test_no_more_are_let_in_than_fit() -> None:
    line = line_of()
    tickets = [line.admit(4, 8), line.admit(4, 8)]  # not decoded yet, and they count
    assert refused(line, 3) >= 1
    line.admit(2, 4)
    assert refused(line, 1) >= 1
    with pytest.raises(Refusal):
        line.look()
    line.leave(tickets[0])
    line.look()
    line.admit(4, 8)
    line = line_of()
    line.admit(1, 30)
    assert refused(line, 1, 11) >= 1
    line.admit(1, 10)


def test_the_measured_pace_closes_the_door_and_says_when_to_come_again() -> None:
    line = line_of(timeout=10.0)
    line.learn(units=1, searching=60.0, exemplars=2, encoding=60.0)  # too few to tell
    line.learn(units=4, searching=4.0, exemplars=8, encoding=8.0)  # 3 s a unit of two exemplars
    enter(line, 1)
    assert refused(line, 1) == 3
    enter_at_once = line_of(timeout=10.0)
    enter_at_once.learn(units=4, searching=240.0, exemplars=8, encoding=0.0)
    enter(enter_at_once, 1)  # nobody is before it: it may try
    line.learn(units=1000, searching=1.0, exemplars=2000, encoding=1.0)
    enter(line, 4)
    assert line.units == 5


def test_a_batch_waits_only_for_who_is_on_the_way() -> None:
    line = line_of(wait_ms=10_000.0, batch=4)
    enter(line, 1)
    start = time.monotonic()
    assert len(line.take()) == 1
    assert time.monotonic() - start < 1
    ticket = line.admit(2, 4)
    enter(line, 1, request=1)
    later = threading.Timer(0.1, lambda: line.join(ticket, units(2, request=2), nobody))
    later.start()
    assert numbers(line.take()) == [(1, 0), (2, 0), (2, 1)]
    assert time.monotonic() - start < 5
    ticket = line.admit(2, 4)
    enter(line, 1, request=1)
    later = threading.Timer(0.1, lambda: line.leave(ticket))
    later.start()
    assert numbers(line.take()) == [(1, 0)]
    assert line.units == 0


def test_it_waits_no_longer_than_it_may() -> None:
    line = line_of(wait_ms=50.0)
    line.admit(1, 2)
    enter(line, 1)
    start = time.monotonic()
    assert len(line.take()) == 1
    assert 0.04 < time.monotonic() - start < 1


def test_who_is_dropped_makes_room() -> None:
    line = line_of(batch=2)
    first, second = enter(line, 4, request=1), enter(line, 4, request=2)
    assert len(line.take()) == 2
    assert line.leave(first) == 2 and first.gone
    assert line.units == 4
    enter(line, 4, request=3)
    assert numbers(line.take()) == [(2, 0), (2, 1)]
    assert not second.gone
    assert line.leave(first) == 0
    assert line.units == 6


def test_who_is_dropped_while_a_batch_waits_does_not_end_the_work() -> None:
    line = line_of(wait_ms=100.0)
    on_the_way = line.admit(1, 2)
    first = enter(line, 1, request=1)
    threading.Timer(0.02, lambda: line.leave(first)).start()
    threading.Timer(0.3, lambda: line.join(on_the_way, units(1, request=2), nobody)).start()
    assert numbers(line.take()) == [(2, 0)]


def test_at_the_end_nobody_is_let_in_and_who_waits_is_returned() -> None:
    line = line_of()
    enter(line, 2)
    left = line.close()
    assert numbers(left) == [(0, 0), (0, 1)]
    assert line.take() == []
    with pytest.raises(Refusal) as caught:
        line.admit(1, 1)
    assert caught.value.status_code == 503


def test_who_joins_after_the_end_is_told() -> None:
    line, told = line_of(), []
    ticket = line.admit(1, 2)
    line.close()
    line.join(ticket, units(1), told.append)
    assert isinstance(told[0], Refusal) and told[0].status_code == 503
    line.leave(ticket)
    assert line.units == 0


def test_who_leaves_twice_leaves_once() -> None:
    line = line_of()
    never, first = line.admit(2, 4), enter(line, 3)
    for _ in range(2):
        line.leave(never)
    assert line.units == 3
    for _ in range(2):
        line.leave(first)
    assert line.units == 0
    enter(line, 1)
    assert len(line.take()) == 1
    enter(line, 4)
    line.look()
