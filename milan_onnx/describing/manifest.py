"""The manifest of a run: what was run on what, and how."""

from __future__ import annotations

import platform
from dataclasses import asdict
from typing import Any

import numpy as np

from milan_onnx import __version__
from milan_onnx.describing.job import Job
from milan_onnx.describing.scanning import Scanned
from milan_onnx.probe import probe_digest
from milan_onnx.run import FORMAT, FORMAT_VERSION
from milan_onnx.runtime import installed_runtimes


def manifest(job: Job, scanned: Scanned) -> dict[str, Any]:
    """All that may differ between equal runs is under ``environment``."""
    bundle = job.bundle.manifest
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "milan_onnx": __version__,
        "model": {"name": job.subject.path.name, "sha256": job.subject.sha256},
        "layers": _layers(scanned),
        "probe": _probe(job, scanned),
        "preprocessing": asdict(job.preprocessing),
        "bundle": {"name": bundle.name, "version": bundle.version, "sha256": job.bundle.sha256},
        "search": asdict(job.search),
        "options": _options(job),
        "environment": _environment(job, scanned),
    }


def _layers(scanned: Scanned) -> list[dict[str, Any]]:
    return [
        {
            "tensor": output.layer.tensor,
            "op": output.layer.op,
            "node": output.layer.node,
            "module": output.layer.module,
            "units": layer.units,
            "grid": list(layer.maps.shape[2:]),
            "quantile_method": layer.method,
            "notes": list(output.notes),
        }
        for output, layer in zip(scanned.tapped.outputs, scanned.layers, strict=True)
    ]


def _probe(job: Job, scanned: Scanned) -> dict[str, Any]:
    loader = scanned.loader
    return {
        "name": job.probe.name,
        "images": len(job.probe),
        "usable": len(loader.digests),
        "sha256": probe_digest(loader.digests, job.probe.names),
        "skipped": [asdict(skipped) for skipped in loader.skipped],
        "converted": [asdict(converted) for converted in loader.converted],
    }


def _options(job: Job) -> dict[str, Any]:
    options = job.options
    names = ("exemplars", "quantile", "candidates", "tail_memory", "limit", "synthetic", "seed")
    return {name: getattr(options, name) for name in (*names, "layout")} | {
        "inputs": dict(sorted(options.inputs.items()))
    }


def _environment(job: Job, scanned: Scanned) -> dict[str, Any]:
    return {
        "model_path": str(job.subject.path),
        "images": job.probe.source,
        "bundle_path": str(job.bundle.path),
        "device": str(job.device.value),
        "device_reason": job.device.reason,
        "threads": job.threads,
        "batch": scanned.batch,
        "onnxruntime": installed_runtimes(),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
