"""What a run's units are called by other searches, from the run's own photos and captioner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from milan_onnx.applications.evaluate import baselines
from milan_onnx.applications.evaluate.answers import TOP, Descriptions
from milan_onnx.applications.evaluate.captions import search
from milan_onnx.applications.evaluate.described import COHERENT
from milan_onnx.applications.evaluate.truth import Kind
from milan_onnx.applications.reopened import exemplar_features, run_bundle, search_settings
from milan_onnx.errors import UsageError
from milan_onnx.labels import UnitLabel
from milan_onnx.progress import Reporter
from milan_onnx.reporting import run_probe
from milan_onnx.run import Run
from milan_onnx.runtime import Describer, Encoder, choose_device, choose_threads
from milan_onnx.runtime.encoding import Floats

UNITS: Literal["units"] = "units"
"""The kind of a truth that is a file of described units."""
ONLY_DESCRIBED: Mapping[str, Any] = {
    "network": None,
    "least_coherence": COHERENT,
    "nearest": True,
    "photos": None,
    "features": None,
}
"""Options that only described units have, and what they are by default."""
NOT_DESCRIBED: Mapping[str, Any] = {
    "regions": None,
    "metrics": (),
    "bertscore_model": None,
}
"""Options that described units do not have."""


@dataclass(frozen=True)
class RunOptions:
    """How a run is judged."""

    kind: Kind | Literal["units"] | None = None
    """What the truth file is; None: found out."""

    layers: tuple[str, ...] = ()
    """Layers to judge, by tensor, node or module; none: all that the truth is about."""

    images: str | Path | None = None
    """The run's photos, where they have moved."""

    bundle: Path | None = None
    """The run's captioner, where it has moved."""

    regions: Path | None = None
    """Folder of labelled photos that holds the run's photos: adds NetDissect's labels."""

    skip_bad: bool = False
    """Go on without what is wrong in the truth file."""

    seed: int = 0
    """Seed of shuffling and bootstrap."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    threads: int | None = None
    """Batches in flight; None: the processors this process may use. Changes no result."""

    similarity: bool | None = None
    """Sentence similarity: True demands it, None takes it where it is installed."""

    metrics: tuple[str, ...] = ()
    """Text metrics of the paper: bleu, rouge, bertscore."""

    bertscore_model: str | None = None
    """Name or folder of another model for BERTScore; None: roberta-large."""

    network: str | None = None
    """Network of a file of described units; None: the one whose units the run has."""

    least_coherence: float = COHERENT
    """Mean coherence from which on a described unit is judged."""

    nearest: bool = True
    """Describe by the nearest described units too, where their photos are there."""

    photos: Path | None = None
    """Photos of described units; None: beside their file."""

    features: Path | None = None
    """Folder that keeps the features of the described units that are looked among."""

    def refuse(self, names: Mapping[str, Any], what: str) -> None:
        """Raise UsageError where one of some options is given that only ``what`` has."""
        for name, default in names.items():
            if getattr(self, name) != default:
                option = {"metrics": "metric"}.get(name, name.replace("_", "-"))
                raise UsageError(f"--{option} goes with {what} only", hint="see --help")


class SearchedAgain:
    """The described units of a run, whose descriptions are searched again."""

    def __init__(
        self, run: Run, labels: Sequence[UnitLabel], options: RunOptions, say: Reporter
    ) -> None:
        self._run, self._options, self._say = run, options, say
        self._count = len(labels)
        self.described = [i for i, label in enumerate(labels) if label.description is not None]
        """Places of the units that have a description: the others have nothing to describe."""
        self._labels = [labels[i] for i in self.described]
        self.words = 0
        """Words of the captioner, once it is open."""

    @cached_property
    def describer(self) -> Describer:
        """The run's captioner. Raises BundleError where it is gone or another one."""
        bundle = run_bundle(self._run, self._options.bundle)
        device = choose_device(self._options.device)
        threads = choose_threads(self._options.threads)
        self._say.choice("device", device)
        self._say.choice("threads", threads)
        made = Describer(bundle, device.value, threads.value)
        # A GPU is filled by one batch of photos at a time.
        self.workers = threads.value if device.value.name == "cpu" else 1
        self.words = made.words
        return made

    @cached_property
    def encoder(self) -> Encoder:
        """The captioner's encoder."""
        return self.describer.encoder()

    @cached_property
    def features(self) -> list[Floats]:
        """Features (K, F) of the described units. Raises RunError where the photos are gone."""
        encoder = self.encoder
        probe = run_probe(self._run, self._options.images)
        return exemplar_features(self._run, self._labels, probe, encoder, self.workers, self._say)

    def search(self) -> dict[str, Descriptions]:
        """Descriptions of all units by other searches than the run's, by row."""
        features = self.features
        ways = baselines.searches(search_settings(self._run))
        others = {name: way for name, way in ways.items() if name != "ours"}
        with self._say.stage("describe", len(others) * len(features), "searches") as meter:
            return {
                name: self.back(search(self.describer, features, way, meter))
                for name, way in others.items()
            }

    def back(self, texts: Sequence[list[str]]) -> list[list[str]]:
        """Descriptions of the described units as those of all units."""
        whole: list[list[str]] = [[] for _ in range(self._count)]
        for index, found in zip(self.described, texts, strict=True):
            whole[index] = found
        return whole


def candidates(label: UnitLabel) -> list[str]:
    """The first five descriptions of a label."""
    texts = [candidate.description for candidate in label.candidates[:TOP]]
    return texts or ([label.description] if label.description else [])
