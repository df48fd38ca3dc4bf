"""The thread that takes batches from the line to the engine, and answers back."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from threading import Thread
from time import monotonic

from milan_onnx.serve.captioning.engine import Engine, Score
from milan_onnx.serve.captioning.line import Line, Place, stopping
from milan_onnx.serve.errors import Refusal
from milan_onnx.serve.metrics import Metrics

LOG = logging.getLogger("milan_onnx.serve")


class Worker:
    """Owns the engine from `start` to `stop`."""

    def __init__(self, engine: Engine, line: Line, metrics: Metrics) -> None:
        self._engine, self._line, self._metrics = engine, line, metrics
        self._thread = Thread(target=self._work, name="milan-captioning", daemon=True)

    def start(self) -> None:
        """Begin to take batches."""
        self._thread.start()

    @property
    def works(self) -> bool:
        """Whether the thread is alive."""
        return self._thread.is_alive()

    def stop(self, seconds: float) -> None:
        """Finish the batch under way, waiting so long at most; who still waits is told 503."""
        for place in self._line.close():
            _fail(place, stopping())
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def _work(self) -> None:
        while batch := self._line.take():
            present = [place for place in batch if self._is_wanted(place)]
            if not present:
                continue
            try:
                self._run(present)
            except Exception as error:
                LOG.exception("a batch failed")
                for place in present:
                    _fail(place, error)

    def _is_wanted(self, place: Place) -> bool:
        """Whether somebody waits for the unit; who is out of time is told."""
        if place.ticket.gone:
            self._metrics.dropped.labels("gone").inc()
            return False
        if monotonic() > place.ticket.until:
            self._metrics.dropped.labels("late").inc()
            _fail(place, late())
            return False
        return True

    def _run(self, batch: Sequence[Place]) -> None:
        units = [place.unit for place in batch]
        answers, cost = self._engine.run(units)
        exemplars = sum(len(unit.regions) for unit in units)
        self._line.learn(len(units), cost.searching, exemplars, cost.encoding)
        self._metrics.batch_units.observe(len(units))
        self._metrics.batch_seconds.observe(cost.encoding + cost.searching)
        self._metrics.images.labels("encoded").inc(cost.encoded)
        self._metrics.images.labels("recalled").inc(cost.recalled)
        for place, answer in zip(batch, answers, strict=True):
            work = "score" if isinstance(place.unit.task, Score) else "describe"
            self._metrics.units.labels(work).inc()
            if isinstance(answer, Exception):
                _fail(place, answer)
                continue
            place.ticket.answers[place.index] = answer
            found = [one for one in place.ticket.answers if one is not None]
            if len(found) == len(place.ticket.answers):
                place.ticket.deliver(found)


def late() -> Refusal:
    """What is answered when a request's time is up."""
    return Refusal(
        503, "there was no time for this", hint="send less", headers={"Retry-After": "5"}
    )


def _fail(place: Place, error: Exception) -> None:
    """Answer a request with an error, once."""
    if not place.ticket.gone:
        place.ticket.gone = True
        place.ticket.deliver(error)
