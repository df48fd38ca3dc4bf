"""Described units: what annotators said of units, with the exemplars that they saw.

Training learns from them, evaluation judges against them. Sources are a file of described units
(`DescribedUnits`) and a folder of MILANNOTATIONS (`Milannotations`).
"""

from __future__ import annotations

from milan_onnx.annotations.cache import FeatureCache, encoder_name
from milan_onnx.annotations.described import DescribedUnits, describes_units
from milan_onnx.annotations.features import annotated_features
from milan_onnx.annotations.groups import Split, networks_of, split_units
from milan_onnx.annotations.milannotations import Milannotations
from milan_onnx.annotations.units import AnnotatedUnit, AnnotatedUnits, Annotation

__all__ = [
    "AnnotatedUnit",
    "AnnotatedUnits",
    "Annotation",
    "DescribedUnits",
    "FeatureCache",
    "Milannotations",
    "Split",
    "annotated_features",
    "describes_units",
    "encoder_name",
    "networks_of",
    "split_units",
]
