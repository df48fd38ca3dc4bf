"""Asks the workers of a cluster for the parts of a job, and puts them together in order.

A worker that is lost is replaced by Ray and its unfinished parts are done again; results do not
depend on who did which part, nor when. States of the scan meet in a tree of merges on the cluster,
so no node holds more than two.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from milan_onnx.cache import Key
from milan_onnx.choice import Choice
from milan_onnx.describing.cluster.options import ClusterOptions
from milan_onnx.describing.cluster.worker import (
    Found,
    Labels,
    Worker,
    merge_states,
)
from milan_onnx.describing.encoding import BATCH as FRAMES
from milan_onnx.describing.encoding import Ids, exemplar_regions, photos_of, put_features
from milan_onnx.describing.features import StoredFeatures
from milan_onnx.describing.finishing import OnLabel, complete
from milan_onnx.describing.job import Job, arguments
from milan_onnx.describing.kept import Kept
from milan_onnx.describing.labelling import Described, label_units
from milan_onnx.describing.part import Part, save_part
from milan_onnx.describing.recalling import job_facts
from milan_onnx.describing.resuming import apart_from_machine, difference
from milan_onnx.describing.scanning import (
    STATE,
    Ran,
    Scanned,
    finish,
    new_scan,
    ran_as,
    resumed,
    scan_settings,
)
from milan_onnx.describing.validating import Scored, held_out_regions, put_scores
from milan_onnx.errors import EnvironmentUnfit, ExtraMissing, MilanError
from milan_onnx.exemplars import LayerExemplars
from milan_onnx.labels import UnitLabel
from milan_onnx.progress import Meter, Reporter
from milan_onnx.runtime import Features, Hypothesis
from milan_onnx.runtime.search import BATCH

PARTS = 4
"""Parts of the photos for each worker: a lost one costs a quarter of what it did."""
LEAST_PHOTOS = 32
REACH_SECONDS = 10
SHARES = 3
"""Shares of a later stage for each worker: the last one to end keeps others waiting less."""
RETRIES = 5
"""Times that a worker is replaced, and a part is done again."""


class Cluster:
    """A job's workers, from the first stage that needs them on; use it as a context."""

    def __init__(
        self,
        options: ClusterOptions,
        images: str | Path | None,
        bundle: str | Path | None,
        say: Reporter,
    ) -> None:
        """Raises ExtraMissing where Ray is not installed, UsageError for options that cannot be."""
        options.check()
        self._ray = _import_ray()
        self._options, self._images, self._bundle, self._say = options, images, bundle, say
        self._began = False
        self._workers: list[Any] = []

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._began:
            return
        for worker in self._workers:
            self._ray.kill(worker)
        self._ray.shutdown()

    def scan(self, job: Job, kept: Kept) -> Scanned:
        """What a pass over all photos finds; raises as `scanning.scan_layers`."""
        whole = range(len(job.inputs))
        part, ran = resumed(job, whole, kept) or self._scanned(job, whole, kept)
        return finish(job, part, ran, kept)

    def _scanned(self, job: Job, whole: range, kept: Kept) -> tuple[Part, Ran]:
        workers = self._connected(job)
        ranges = _ranges(len(whole), len(workers))
        states = _Parts(self._ray, job, kept)
        todo = [photos for photos in ranges if not states.take(photos)]
        with job.say.stage("scan", len(whole), "images") as meter:
            meter(len(whole) - sum(map(len, todo)))
            ask = [(photos.start, photos.stop) for photos in todo]
            for index, (state, how) in self._spread("scan", ask, returns=2):
                states.put(todo[index], state, ran_as(self._get(how)))
                meter(len(todo[index]))
        part, ran = self._merged(job, [states.of(photos) for photos in ranges]), states.ran
        if kept.worth_it and kept.folder is not None:
            with kept.saving():
                save_part(kept.folder / STATE, part, asdict(ran))
        return part, ran

    def _merged(self, job: Job, states: Sequence[Any]) -> Part:
        """All parts in one, by a tree of merges on the cluster."""
        merge = self._ray.remote(merge_states).options(num_cpus=0, max_retries=RETRIES)
        settings = scan_settings(job)
        while len(states) > 1:
            pairs = [states[i : i + 2] for i in range(0, len(states), 2)]
            states = [p[0] if len(p) == 1 else merge.remote(settings, *p) for p in pairs]
        return Part.of(self._get(states[0]), new_scan(job))

    def labels(self, job: Job, scanned: Scanned, on_label: OnLabel, kept: Kept) -> list[UnitLabel]:
        """Labels of all units: workers encode by photos, and describe by units; raises as the
        stages do here."""
        self._connected(job)
        found = self._ray.put(Found(scanned.layers, scanned.held_out))

        def describe(told: OnLabel) -> list[list[Described]]:
            features = self._encoded(job, scanned.layers, found)
            search = partial(self._search, job)
            return label_units(job, scanned.layers, features, told, kept, search)

        def score(scored: Sequence[Scored], table: Ids) -> None:
            self._score(job, scanned, scored, table, found)

        return complete(job, scanned, on_label, describe, score)

    def _encoded(
        self, job: Job, layers: Sequence[LayerExemplars], found: Any
    ) -> list[StoredFeatures]:
        """Features (describable units, K, F) of each layer."""
        regions, length = exemplar_regions(job, layers), job.bundle.manifest.encoder.features
        features = [StoredFeatures(len(r.ids), r.ids.shape[1], length, None) for r in regions]
        for part in self._by_photos("encode", "encode", (found,), photos_of(regions), job):
            put_features(features, *part)
        return features

    def _search(self, job: Job, units: Features, meter: Meter) -> Iterator[Sequence[Hypothesis]]:
        """The hypotheses of units, in order."""
        # The paper's code ranks by all units of a layer together.
        size = len(units) if job.search.legacy else self._share(len(units), BATCH)
        starts = range(0, len(units), max(1, size))
        asked = ((units[start : start + size],) for start in starts)
        for found in self._in_order("describe", asked):
            meter(len(found))
            yield from found

    def _score(
        self, job: Job, scanned: Scanned, scored: Sequence[Scored], table: Ids, found: Any
    ) -> None:
        """Put in the scores of labels, as `validating.score_layers` does here."""
        units = tuple(layer.units for layer in scored)
        labels = self._ray.put(Labels(units, table))
        photos = photos_of(held_out_regions(job, scanned.layers, scanned.held_out, units))
        for part in self._by_photos("validate", "score", (found, labels), photos, job):
            put_scores(scored, *part)

    def _by_photos(
        self, stage: str, method: str, given: tuple[Any, ...], photos: int, job: Job
    ) -> Iterator[Any]:
        """What workers make of parts of so many photos, in any order."""
        size = self._share(photos, FRAMES)
        starts = range(0, photos, max(1, size))
        asked = [(*given, start, min(photos, start + size)) for start in starts]
        with job.say.stage(stage, photos, "images") as meter:
            for index, (answer,) in self._spread(method, asked):
                yield from self._get(answer)
                meter(asked[index][-1] - asked[index][-2])

    def _share(self, things: int, step: int) -> int:
        """How many of some things a worker does at once: whole steps, a few shares for each."""
        each = math.ceil(things / (SHARES * max(1, len(self._workers))))
        return max(1, math.ceil(each / step)) * step

    def _in_order(self, method: str, asked: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """What workers answer, in the order of the asking."""
        early: dict[int, Any] = {}
        wanted = 0
        for index, (answer,) in self._spread(method, asked):
            early[index] = self._get(answer)
            while wanted in early:
                yield early.pop(wanted)
                wanted += 1

    def _spread(
        self, method: str, asked: Iterable[tuple[Any, ...]], returns: int = 1
    ) -> Iterator[tuple[int, list[Any]]]:
        """Indices and references of answers as they come; a worker has one more in its queue."""
        free = [*self._workers, *self._workers]
        under_way: dict[Any, tuple[int, list[Any], Any]] = {}
        todo = iter(enumerate(asked))
        while True:
            while free and (item := next(todo, None)) is not None:
                worker = free.pop(0)
                call = getattr(worker, method).options(num_returns=returns)
                answers = call.remote(*item[1])
                answers = list(answers) if returns > 1 else [answers]
                under_way[answers[-1]] = (item[0], answers, worker)
            if not under_way:
                return
            for done in self._ray.wait(list(under_way), num_returns=1)[0]:
                index, answers, worker = under_way.pop(done)
                self._get(done)
                yield index, answers
                free.append(worker)

    def _get(self, reference: Any) -> Any:
        """What a reference stands for. Raises the worker's own error, or EnvironmentUnfit."""
        with _as_errors(self._ray):
            return self._ray.get(reference)

    def _connected(self, job: Job) -> list[Any]:
        """The workers, made when they are first needed."""
        if not self._began:
            with _as_errors(self._ray):
                self._connect(job)
                self._check_alike(job)
        return self._workers

    def _connect(self, job: Job) -> None:
        wanted = self._options
        if wanted.address:
            _check_reachable(wanted.address)
        here = max(job.threads, (wanted.workers or 1) * (wanted.cpus or 1))
        self._start(wanted.address, here)
        self._began = True
        has = self._ray.cluster_resources()
        nodes = sum(1 for node in self._ray.nodes() if node["Alive"])
        on_gpu = job.device.value.name != "cpu"
        gpus = wanted.gpus if wanted.gpus is not None else float(on_gpu)
        workers = wanted.workers or (max(1, int(has.get("GPU", 0) / gpus)) if gpus else nodes)
        cpus = wanted.cpus or max(1, int(has.get("CPU", 1)) // workers)
        where = f"the cluster at {wanted.address}" if wanted.address else "this machine"
        text = f"{workers} on {where}, processors of each: {cpus}, GPUs of each: {gpus:g}"
        why = "--workers" if wanted.workers else "one a GPU" if gpus else "one a node"
        self._say.choice("workers", Choice(text, why))
        made = self._ray.remote(Worker).options(
            num_cpus=cpus, num_gpus=gpus, max_restarts=RETRIES, max_task_retries=RETRIES
        )
        same = arguments(job, self._images, self._bundle), replace(job.options, threads=cpus)
        self._workers = [made.remote(*same) for _ in range(workers)]

    def _start(self, address: str | None, processors: int) -> None:
        """Raises EnvironmentUnfit where Ray does not start here."""
        try:
            self._ray.init(
                address=address,
                num_cpus=None if address else processors,
                include_dashboard=None if address else False,
                log_to_driver=False,
                logging_level="ERROR",
            )
        except Exception as error:
            if type(error) is not Exception:  # Ray has no class for a start that took too long
                raise
            raise EnvironmentUnfit(
                f"Ray does not start: {_line(error)}",
                hint="try again when the machine has less to do, or see the logs of Ray",
            ) from error

    def _check_alike(self, job: Job) -> None:
        """Every worker must have the same model, photos and program."""
        mine = job_facts(job)
        asked = [worker.facts.remote() for worker in self._workers]
        waiting = asked
        while waiting:
            _, waiting = self._ray.wait(waiting, num_returns=len(waiting), timeout=10)
            if waiting:
                there = len(asked) - len(waiting)
                self._say.note(f"waiting for workers: {there} of {len(asked)} are there")
        kinds = {Key(mine["arithmetic"]).sha256}
        for node, facts in self._ray.get(asked):
            if differs := difference(apart_from_machine(facts), apart_from_machine(mine)):
                raise EnvironmentUnfit(
                    f"the node {node} has another {differs}",
                    hint="give all nodes the same files and the same milan-onnx",
                )
            kinds.add(Key(facts["arithmetic"]).sha256)
        if len(kinds) > 1:
            self._say.note(
                "warning: the nodes have processors of several kinds: the last bits may differ "
                "from a run on one of them"
            )


class _Parts:
    """States of parts of the photos on the cluster, kept here now and then."""

    def __init__(self, ray: Any, job: Job, kept: Kept) -> None:
        self._ray, self._job, self._kept = ray, job, kept
        self._states: dict[range, Any] = {}
        self._unsaved: list[range] = []
        self._ran: Ran | None = None

    @property
    def ran(self) -> Ran:
        """How the model ran. Raises ValueError before any part is there."""
        if self._ran is None:
            raise ValueError("no part is there")
        return self._ran

    def of(self, photos: range) -> Any:
        """The reference of a part's state."""
        return self._states[photos]

    def take(self, photos: range) -> bool:
        """Whether an earlier try kept this part."""
        path = self._path(photos)
        found = resumed(self._job, photos, self._kept, path.name) if path else None
        if found is None or found[0].done != photos.stop:
            return False
        self._states[photos], self._ran = self._ray.put(found[0].state()), found[1]
        return True

    def put(self, photos: range, state: Any, ran: Ran) -> None:
        """One more part is there."""
        self._states[photos], self._ran = state, ran
        self._unsaved.append(photos)
        if self._kept.due:
            with self._kept.saving():
                for part in self._unsaved:
                    self._save(part)
            self._unsaved = []

    def _save(self, photos: range) -> None:
        path = self._path(photos)
        if path is not None:
            part = Part.of(self._ray.get(self._states[photos]), new_scan(self._job))
            save_part(path, part, asdict(self.ran))

    def _path(self, photos: range) -> Path | None:
        folder = self._kept.folder
        return folder / f"scan-{photos.start}-{photos.stop}.npz" if folder else None


def _ranges(photos: int, workers: int) -> list[range]:
    """Parts of a listing, in order."""
    count = max(1, min(PARTS * workers, photos // LEAST_PHOTOS))
    edges = [i * photos // count for i in range(count + 1)]
    return [range(begin, end) for begin, end in pairwise(edges)]


def _check_reachable(address: str) -> None:
    """Raise OSError where nobody answers at host:port: Ray itself would try for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_SECONDS).close()


def _import_ray() -> Any:
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ExtraMissing(
            "--engine ray needs ray, which is not installed",
            hint="pip install 'milan-onnx[cpu,ray]'",
        ) from error
    return ray


@contextmanager
def _as_errors(ray: Any) -> Iterator[None]:
    """Ray's errors as those of this package."""
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        cause = error.cause if isinstance(error.cause, MilanError) else None
        if cause is None:
            raise
        raise cause from error
    except ray.exceptions.ActorDiedError as error:
        cause = _cause(error)
        if cause is not None:
            raise cause from error
        raise EnvironmentUnfit(
            f"workers of the cluster are lost again and again: {_line(error)}",
            hint="see the logs of Ray; give workers more memory, or take fewer of them on a node",
        ) from error
    except (ray.exceptions.RayError, OSError, RuntimeError, ValueError) as error:
        if isinstance(error, MilanError):
            raise
        raise EnvironmentUnfit(
            f"the Ray cluster cannot do it: {_line(error)}",
            hint="see --ray-address, and the logs of Ray",
        ) from error


def _cause(error: Exception) -> MilanError | None:
    """The error of this package that a worker's making ended with, if it was one."""
    cause = getattr(getattr(error, "cause", None), "cause", None)
    return cause if isinstance(cause, MilanError) else None


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
