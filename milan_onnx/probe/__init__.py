"""Probe images: where they come from, how they are decoded, and how they reach the network."""

from milan_onnx.probe.base import Loaded, MadeProbe, PickedProbe, ProbeSet, evenly
from milan_onnx.probe.checksum import Checksum
from milan_onnx.probe.decode import Decoded, Unusable, decode
from milan_onnx.probe.exemplars import ExemplarImages
from milan_onnx.probe.exemplars import numbers as exemplar_numbers
from milan_onnx.probe.files import listed_files, listed_text
from milan_onnx.probe.loader import (
    Batch,
    Converted,
    Loader,
    Skipped,
    default_workers,
    describe_skips,
    frames,
    listing_digest,
    nothing_usable,
    probe_digest,
)
from milan_onnx.probe.sources import absent, open_probe
from milan_onnx.probe.synthetic import SyntheticProbe

__all__ = [
    "Batch",
    "Checksum",
    "Converted",
    "Decoded",
    "ExemplarImages",
    "Loaded",
    "Loader",
    "MadeProbe",
    "PickedProbe",
    "ProbeSet",
    "Skipped",
    "SyntheticProbe",
    "Unusable",
    "absent",
    "decode",
    "default_workers",
    "describe_skips",
    "evenly",
    "exemplar_numbers",
    "frames",
    "listed_files",
    "listed_text",
    "listing_digest",
    "nothing_usable",
    "open_probe",
    "probe_digest",
]
