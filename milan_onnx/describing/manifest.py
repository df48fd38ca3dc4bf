"""The manifest of a run: what was run on what, and how."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from milan_onnx import __version__
from milan_onnx.describing.abstaining import rule
from milan_onnx.describing.job import Captioning, Job
from milan_onnx.describing.scanning import Scanned
from milan_onnx.exemplars import LayerExemplars
from milan_onnx.labels import LayerSummary, UnitLabel, summarize
from milan_onnx.probe import ExemplarImages
from milan_onnx.run import FORMAT, FORMAT_VERSION
from milan_onnx.runtime import installed_runtimes


def manifest(job: Job, scanned: Scanned, labels: Sequence[UnitLabel], facts: str) -> dict[str, Any]:
    """All that may differ between equal runs is under ``environment``; ``facts``: their hash."""
    return _captioning(job, labels) | {
        "model": {"name": job.subject.path.name, "sha256": job.model},
        "layers": _layers(job, scanned, labels),
        "probe": _probe(job, scanned),
        "preprocessing": asdict(job.preprocessing) | {"geometry": asdict(job.geometry)},
        "validity": _validity(job, scanned),
        "environment": _environment(job)
        | {"batch": scanned.ran.batch}
        | places(job)
        | {"job": facts},
    }


def places(job: Job) -> dict[str, Any]:
    """Of the environment, where things are: all that an equal run may have another of."""
    return {
        "images": job.probe.source,
        "bundle_path": str(job.bundle.path),
        "model_path": str(job.subject.path),
        **({"generator": dict(job.generator)} if job.generator else {}),
    }


def folder_manifest(
    job: Captioning, folder: Path, layers: Sequence[LayerExemplars], labels: Sequence[UnitLabel]
) -> dict[str, Any]:
    """The same of a run whose exemplars another tool found."""
    used = len({i for layer in layers for i in np.unique(layer.ids).tolist()})
    return _captioning(job, labels) | {
        "model": {"name": folder.resolve().name, "sha256": job.model},
        "layers": [_given_layer(layer, summarize(layer.layer, labels)) for layer in layers],
        "probe": {
            "name": job.probe.name,
            "images": len(job.probe),
            "usable": used,
            "sha256": job.model,
            "skipped": [],
            "converted": [],
            "from_exemplars": isinstance(job.probe, ExemplarImages),
        },
        "preprocessing": {"geometry": asdict(job.geometry)},
        "validity": None,
        "environment": _environment(job) | {"model_path": str(folder), "batch": None},
    }


def _captioning(job: Captioning, labels: Sequence[UnitLabel]) -> dict[str, Any]:
    bundle = job.bundle.manifest
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "milan_onnx": __version__,
        "bundle": {"name": bundle.name, "version": bundle.version, "sha256": job.bundle.sha256},
        "search": asdict(job.search),
        "options": result_options(job),
        "abstaining": rule(job.options, labels),
    }


def _given_layer(layer: LayerExemplars, summary: LayerSummary) -> dict[str, Any]:
    return {
        "tensor": layer.layer,
        "op": "",
        "node": "",
        "module": "",
        "units": layer.units,
        "grid": list(layer.maps.shape[2:]),
        "quantile_method": layer.method,
        "notes": ["exemplars and masks of another tool"],
        **_found(summary),
    }


def _layers(job: Job, scanned: Scanned, labels: Sequence[UnitLabel]) -> list[dict[str, Any]]:
    names = [layer.layer for layer in scanned.layers]
    summaries = [summarize(name, labels) for name in names]
    return [
        {
            "tensor": facts.tensor,
            "op": facts.op,
            "node": facts.node,
            "module": facts.module,
            "units": layer.units,
            "grid": list(layer.maps.shape[2:]),
            "quantile_method": layer.method,
            "notes": list(notes),
            **_found(summary),
        }
        for facts, notes, layer, summary in zip(
            job.layers, scanned.ran.notes, scanned.layers, summaries, strict=True
        )
    ]


def _found(summary: LayerSummary) -> dict[str, Any]:
    return {
        "described": summary.described,
        "distinct": summary.distinct,
        "confidence": summary.confidence,
        "abstained": summary.abstained,
        "validity": asdict(summary.validity) if summary.validity else None,
    }


def _validity(job: Job, scanned: Scanned) -> dict[str, Any] | None:
    """How labels were tested; None where they were not."""
    if job.held_out is None or not scanned.held_out:
        return None
    return {
        "top": job.held_out.top,
        "sample": [len(held.sample_maps) for held in scanned.held_out],
        "held_out": scanned.held_out[0].images,
        "level": job.options.validity_level,
    }


def _probe(job: Job, scanned: Scanned) -> dict[str, Any]:
    met = scanned.met
    return {
        "name": job.probe.name,
        "images": len(job.probe),
        "usable": met.usable,
        "sha256": met.photos.hexdigest(),
        "skipped": [asdict(skipped) for skipped in met.skipped],
        "converted": [asdict(converted) for converted in met.converted],
    }


def result_options(job: Captioning) -> dict[str, Any]:
    """The settings that change what is found, as the user gave them."""
    options = job.options
    names = ("exemplars", "quantile", "candidates", "tail_memory", "limit", "synthetic", "seed")
    more = ("layout", "validity", "validity_level", "abstain_below")
    return {name: getattr(options, name) for name in (*names, *more)} | {
        "inputs": dict(sorted(options.inputs.items()))
    }


def _environment(job: Captioning) -> dict[str, Any]:
    return {
        "images": job.probe.source,
        "bundle_path": str(job.bundle.path),
        "device": str(job.device.value),
        "device_reason": job.device.reason,
        "threads": job.threads,
        "onnxruntime": installed_runtimes(),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
