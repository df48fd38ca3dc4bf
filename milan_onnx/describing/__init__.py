"""The main job: from a model and photos to a run.

Five stages: scan the photos for exemplars of every unit (one pass, all layers); encode the distinct
images among them; pool features under each exemplar's mask; search a description for each unit; put
it to the test on photos that were held out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from milan_onnx.cache import Cache, Key
from milan_onnx.describing.cluster.options import ClusterOptions
from milan_onnx.describing.finishing import Engine, Here, found_run, make_run
from milan_onnx.describing.folders import describe_folder
from milan_onnx.describing.job import Job, prepare
from milan_onnx.describing.kept import NOWHERE
from milan_onnx.describing.options import DescribeOptions
from milan_onnx.describing.recalling import CachedJob, job_facts, run_facts
from milan_onnx.describing.sharding import Shard, merge_shards, scan_shard
from milan_onnx.labels import UnitLabel
from milan_onnx.progress import Reporter, Silent
from milan_onnx.run import Run

__all__ = [
    "ClusterOptions",
    "DescribeOptions",
    "Shard",
    "describe",
    "describe_folder",
    "merge_shards",
    "run_key",
    "scan_shard",
]


def describe(
    model: str | Path,
    layers: str | Sequence[str] | None = None,
    images: str | Path | None = None,
    out: str | Path | None = None,
    *,
    bundle: str | Path | None = None,
    options: DescribeOptions | None = None,
    reporter: Reporter | None = None,
    on_label: Callable[[UnitLabel], None] = lambda label: None,
    cache: Cache | None = None,
    cluster: ClusterOptions | None = None,
) -> Run:
    """Describe the units of layers of an ONNX model.

    ``layers``: names, module paths or globs (None: the deepest layer with positions). ``images``: a
    folder, list file, zip, tar or parquet file of photos, or the address of one
    (`milan_onnx.open_probe`; None: the built-in synthetic set). ``out``: the run's
    folder (None: nothing is written). ``bundle``: another captioner. ``on_label`` is called with
    each label once it is complete: as they come, or with validity at the end. ``cache``: where a
    run that was made before is found, and this one is kept (None: nowhere). ``cluster``: do
    the work on a Ray cluster (None: in this process); the bytes are the same.

    What is done is kept beside ``out`` every few seconds (`.NAME.partial`), so that the same call
    goes on where one was stopped, by whatever, to the same bytes. On a finished run it does
    nothing.

    Raises the errors of `milan_onnx.errors`: FolderBusy where another process makes this run. On
    any of them, and on an interrupt, nothing is left behind at ``out``.
    """
    options = options or DescribeOptions()
    say = reporter or Silent()
    options.check()

    def prepared() -> Job:
        return prepare(model, layers, images, bundle, options, say)

    with _engine(cluster, images, bundle, say) as engine:
        if out is not None:
            place = Path(out)
            return make_run(prepared, engine, place, options.overwrite, say, on_label, cache)
        job = prepared()
        facts = job_facts(job)
        cached = CachedJob(cache, job, facts) if cache else None
        return found_run(job, facts, engine, cached, on_label, NOWHERE)


def _engine(
    cluster: ClusterOptions | None,
    images: str | Path | None,
    bundle: str | Path | None,
    say: Reporter,
) -> AbstractContextManager[Engine]:
    """What does the work."""
    if cluster is None:
        return nullcontext(Here())
    from milan_onnx.describing.cluster.driver import Cluster

    return Cluster(cluster, images, bundle, say)


def run_key(
    model: str | Path,
    layers: str | Sequence[str] | None = None,
    images: str | Path | None = None,
    *,
    bundle: str | Path | None = None,
    options: DescribeOptions | None = None,
) -> Key:
    """What a cache would keep the run as that `describe` makes of the same; raises as it does."""
    options = options or DescribeOptions()
    options.check()
    job = prepare(model, layers, images, bundle, options, Silent())
    return Key(run_facts(job, job_facts(job)))
