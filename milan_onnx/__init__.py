"""milan-onnx: natural language descriptions of the units of a vision network, without torch.

    import milan_onnx

    run = milan_onnx.describe("model.onnx", layers="conv5", images="photos/", out="run/")
    for label in run.labels:
        print(label.layer, label.unit, label.description, label.confidence)

Names are loaded when they are first used, so that importing the package costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "AnalyzeOptions",
    "AuditOptions",
    "Bundle",
    "Cache",
    "Choice",
    "ClusterOptions",
    "Console",
    "DescribeOptions",
    "DiffOptions",
    "EditOptions",
    "Evaluation",
    "Geometry",
    "LayerExemplars",
    "MilanError",
    "Run",
    "RunOptions",
    "SelfTest",
    "Shard",
    "UnitLabel",
    "UnitsOptions",
    "VirtualOptions",
    "analyze_runs",
    "audit_run",
    "describe",
    "describe_folder",
    "diff_runs",
    "edit_model",
    "evaluate_run",
    "evaluate_units",
    "evaluate_virtual",
    "labels_from_metadata",
    "list_layers",
    "load_bundle",
    "load_run",
    "load_subject",
    "merge_shards",
    "open_probe",
    "run_selftest",
    "scan_shard",
    "write_run_report",
]

_HOMES = {
    "AnalyzeOptions": ("milan_onnx.applications.analyze", "AnalyzeOptions"),
    "AuditOptions": ("milan_onnx.applications.audit", "AuditOptions"),
    "Bundle": ("milan_onnx.bundle", "Bundle"),
    "Cache": ("milan_onnx.cache", "Cache"),
    "Choice": ("milan_onnx.choice", "Choice"),
    "ClusterOptions": ("milan_onnx.describing", "ClusterOptions"),
    "Console": ("milan_onnx.progress", "Console"),
    "DescribeOptions": ("milan_onnx.describing", "DescribeOptions"),
    "DiffOptions": ("milan_onnx.applications.diff", "DiffOptions"),
    "EditOptions": ("milan_onnx.applications.edit", "EditOptions"),
    "Evaluation": ("milan_onnx.applications.evaluate", "Evaluation"),
    "Geometry": ("milan_onnx.geometry", "Geometry"),
    "LayerExemplars": ("milan_onnx.exemplars", "LayerExemplars"),
    "MilanError": ("milan_onnx.errors", "MilanError"),
    "Run": ("milan_onnx.run", "Run"),
    "RunOptions": ("milan_onnx.applications.evaluate", "RunOptions"),
    "SelfTest": ("milan_onnx.selftest", "SelfTest"),
    "Shard": ("milan_onnx.describing", "Shard"),
    "UnitLabel": ("milan_onnx.labels", "UnitLabel"),
    "UnitsOptions": ("milan_onnx.applications.evaluate", "UnitsOptions"),
    "VirtualOptions": ("milan_onnx.applications.evaluate", "VirtualOptions"),
    "analyze_runs": ("milan_onnx.applications.analyze", "analyze_runs"),
    "audit_run": ("milan_onnx.applications.audit", "audit_run"),
    "describe": ("milan_onnx.describing", "describe"),
    "describe_folder": ("milan_onnx.describing", "describe_folder"),
    "diff_runs": ("milan_onnx.applications.diff", "diff_runs"),
    "edit_model": ("milan_onnx.applications.edit", "edit_model"),
    "evaluate_run": ("milan_onnx.applications.evaluate", "evaluate_run"),
    "evaluate_units": ("milan_onnx.applications.evaluate", "evaluate_units"),
    "evaluate_virtual": ("milan_onnx.applications.evaluate", "evaluate_virtual"),
    "labels_from_metadata": ("milan_onnx.metadata", "labels_from_metadata"),
    "list_layers": ("milan_onnx.subject", "list_layers"),
    "load_bundle": ("milan_onnx.bundle", "load_bundle"),
    "load_run": ("milan_onnx.run", "load_run"),
    "load_subject": ("milan_onnx.subject", "load"),
    "merge_shards": ("milan_onnx.describing", "merge_shards"),
    "open_probe": ("milan_onnx.probe", "open_probe"),
    "run_selftest": ("milan_onnx.selftest", "selftest"),
    "scan_shard": ("milan_onnx.describing", "scan_shard"),
    "write_run_report": ("milan_onnx.reporting", "write_run_report"),
}

if TYPE_CHECKING:
    from milan_onnx.applications.analyze import AnalyzeOptions as AnalyzeOptions
    from milan_onnx.applications.analyze import analyze_runs as analyze_runs
    from milan_onnx.applications.audit import AuditOptions as AuditOptions
    from milan_onnx.applications.audit import audit_run as audit_run
    from milan_onnx.applications.diff import DiffOptions as DiffOptions
    from milan_onnx.applications.diff import diff_runs as diff_runs
    from milan_onnx.applications.edit import EditOptions as EditOptions
    from milan_onnx.applications.edit import edit_model as edit_model
    from milan_onnx.applications.evaluate import Evaluation as Evaluation
    from milan_onnx.applications.evaluate import RunOptions as RunOptions
    from milan_onnx.applications.evaluate import UnitsOptions as UnitsOptions
    from milan_onnx.applications.evaluate import VirtualOptions as VirtualOptions
    from milan_onnx.applications.evaluate import evaluate_run as evaluate_run
    from milan_onnx.applications.evaluate import evaluate_units as evaluate_units
    from milan_onnx.applications.evaluate import evaluate_virtual as evaluate_virtual
    from milan_onnx.bundle import Bundle as Bundle
    from milan_onnx.bundle import load_bundle as load_bundle
    from milan_onnx.cache import Cache as Cache
    from milan_onnx.choice import Choice as Choice
    from milan_onnx.describing import ClusterOptions as ClusterOptions
    from milan_onnx.describing import DescribeOptions as DescribeOptions
    from milan_onnx.describing import Shard as Shard
    from milan_onnx.describing import describe as describe
    from milan_onnx.describing import describe_folder as describe_folder
    from milan_onnx.describing import merge_shards as merge_shards
    from milan_onnx.describing import scan_shard as scan_shard
    from milan_onnx.errors import MilanError as MilanError
    from milan_onnx.exemplars import LayerExemplars as LayerExemplars
    from milan_onnx.geometry import Geometry as Geometry
    from milan_onnx.labels import UnitLabel as UnitLabel
    from milan_onnx.metadata import labels_from_metadata as labels_from_metadata
    from milan_onnx.probe import open_probe as open_probe
    from milan_onnx.progress import Console as Console
    from milan_onnx.reporting import write_run_report as write_run_report
    from milan_onnx.run import Run as Run
    from milan_onnx.run import load_run as load_run
    from milan_onnx.selftest import SelfTest as SelfTest
    from milan_onnx.selftest import selftest as run_selftest
    from milan_onnx.subject import list_layers as list_layers
    from milan_onnx.subject import load as load_subject


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'milan_onnx' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
