"""How a run is made: the settings of `milan_onnx.describe`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from milan_onnx.bundle import LARGEST_BEAM, Strategy
from milan_onnx.errors import UsageError
from milan_onnx.labels import check_formats
from milan_onnx.subject import Kind, choose_preprocessing


@dataclass(frozen=True)
class DescribeOptions:
    """How a run is made; every field has the paper's value or an automatic choice as default."""

    exemplars: int = 15
    """k, images kept a unit (paper: 15)."""

    quantile: float = 0.99
    """Level of the activation threshold (paper: 0.99)."""

    beam_size: int | None = None
    """Hypotheses of the search; None: the bundle's (paper: 50)."""

    pmi_weight: float | None = None
    """λ of log p(d|E) - λ log p(d); None: the bundle's (paper: 0.2)."""

    strategy: Strategy | None = None
    """consensus (of the beam's descriptions the one that the others agree with most), rerank (the
    one of the highest PMI: the paper), beam (log p(d|E) alone) or greedy; None: the bundle's."""

    legacy: bool | None = None
    """Repeat the quirks of the paper's code (`milan_onnx.bundle.SearchDefaults`); None: as the
    bundle says."""

    candidates: int = 5
    """Descriptions kept a unit, the best one included."""

    validity: bool | None = None
    """Hold half of the photos out and put each label to the test on them; None: where there are
    enough photos."""

    validity_level: float = 0.2
    """Share of shuffled labels that may pass for valid, at most."""

    abstain_below: float | None = None
    """Labels of less confidence abstain, 0..1; 0: none; None: `milan_onnx.labels.ABSTAIN_BELOW`.
    Where the bundle has no calibration, validity decides."""

    limit: int | None = None
    """Use only so many of the photos, evenly spaced; None: all."""

    latents: Path | None = None
    """.npy with a row an image, where the model is a generator; None: it takes photos."""

    classes: Path | None = None
    """.npy with the class of each image, where the generator takes classes too."""

    image_output: str | None = None
    """Tensor that holds a generator's images; None: its only output of images."""

    image_range: str | None = None
    """What black and white are there: "-1,1", "0,1" or "0,255"; None: told from some images."""

    synthetic: int = 1000
    """Images of the built-in probe set, where no photos are given."""

    seed: int = 0
    """Seed of the built-in probe set."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    threads: int | None = None
    """Batches in flight and decoding threads; None: the processors this process may use."""

    reduce: str = "auto"
    """Where activations are searched: host, device, or auto, on a GPU where one runs the model."""

    batch_size: int | None = None
    """Photos run at once; None: by device. Changes no result."""

    tail_memory: int = 512 << 20
    """Bytes for the exact quantile's buffers; beyond it the bounded histogram takes over."""

    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    """Overrides for `milan_onnx.subject.choose_preprocessing`: resize, crop, mean, std, ..."""

    layout: Kind | None = None
    """What the axes of the layers mean, where the graph misleads; None: inferred."""

    inputs: Mapping[str, Any] = field(default_factory=dict)
    """Values of the model's inputs that are no image."""

    milan_format: bool = False
    """Write the exemplars in the format of the paper's code too (`milan_onnx.exemplar_folder`)."""

    formats: tuple[str, ...] = ()
    """Write the labels in these formats too (`milan_onnx.labels.FORMATS`): RUN/labels.csv, ..."""

    write_metadata: bool = False
    """Write a copy of the model that holds the labels (`milan_onnx.metadata`)."""

    metadata_out: Path | None = None
    """Where that copy goes; None: RUN/labelled.onnx."""

    report: bool = True
    """Write report.html."""

    overwrite: bool = False
    """Replace a run that is already there."""

    def check(self) -> None:
        """Refuse what makes no sense, before any work.

        Raises UsageError, or ExtraMissing for a format whose package is not installed.
        """
        wrong = {
            "exemplars": not _whole(self.exemplars) or self.exemplars < 1,
            "quantile": not 0 < self.quantile < 1,
            "beam": self.beam_size is not None and not 1 <= self.beam_size <= LARGEST_BEAM,
            "lambda": self.pmi_weight is not None and not math.isfinite(self.pmi_weight),
            "candidates": self.candidates < 1,
            "validity-level": not 0 < self.validity_level < 1,
            "abstain-below": self.abstain_below is not None and not 0 <= self.abstain_below <= 1,
            "limit": self.limit is not None and self.limit < 1,
            "synthetic": self.synthetic < 1,
            "batch-size": self.batch_size is not None and self.batch_size < 1,
            "tail-memory": self.tail_memory < 0,
            "reduce": self.reduce not in ("auto", "host", "device"),
        }
        for name, bad in wrong.items():
            if bad:
                raise UsageError(f"the value of --{name} is out of range", hint="see --help")
        check_formats(self.formats)
        if self.metadata_out is not None and not self.write_metadata:
            raise UsageError("--metadata-out goes with --write-metadata only", hint="see --help")
        known = inspect.signature(choose_preprocessing).parameters
        for name in self.preprocessing:
            if name not in known or name == "subject":
                raise UsageError(
                    f"preprocessing has no {name}", hint=f"it has {', '.join([*known][1:])}"
                )


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
