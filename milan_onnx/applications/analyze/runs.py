"""``analyze``: runs read, their layers chosen, all figures taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milan_onnx.applications.analyze.apart import PRIOR, words_apart
from milan_onnx.applications.analyze.figures import examples, figures, readings, unknown
from milan_onnx.applications.analyze.reading import Reader, Reading
from milan_onnx.applications.analyze.result import NO_KIND, Analysis, Apart, Figures
from milan_onnx.applications.lexicon import read_lexicon
from milan_onnx.applications.reopened import check_manifest, choose_places, run_places
from milan_onnx.choice import Choice
from milan_onnx.errors import UsageError
from milan_onnx.files import sha256_file
from milan_onnx.labels import UnitLabel
from milan_onnx.progress import Reporter, Silent
from milan_onnx.reporting import display_names
from milan_onnx.run import Run, load_run


@dataclass(frozen=True)
class AnalyzeOptions:
    """How runs are analysed."""

    layers: tuple[str, ...] = ()
    """Layers by tensor, node or module, each in one of the runs at least; none: all."""

    kinds: Path | None = None
    """A lexicon of kinds; None: the one that ships."""

    top: int = 10
    """Most words named that set a group apart, each way."""

    def check(self) -> None:
        """Refuse numbers that make no sense, before any work. Raises UsageError."""
        if not 1 <= self.top <= 1000:
            raise UsageError("the value of --top is out of range", hint="give 1 to 1000")


@dataclass(frozen=True)
class Part:
    """A layer of a run, as it is analysed."""

    tensor: str
    """Its tensor."""

    name: str
    """What people call it."""

    labels: tuple[UnitLabel, ...]
    """Its units, by number."""


@dataclass(frozen=True)
class Subject:
    """A run, as it is analysed."""

    name: str
    """The name of its folder; numbered where several have the same."""

    run: Run
    """The run."""

    layers: tuple[Part, ...]
    """Those asked for, in the run's order."""

    @property
    def labels(self) -> tuple[UnitLabel, ...]:
        """All units of those layers."""
        return tuple(label for part in self.layers for label in part.labels)


def analyze_runs(
    runs: Sequence[str | Path],
    options: AnalyzeOptions | None = None,
    reporter: Reporter | None = None,
) -> Analysis:
    """What kinds of thing the units of some runs respond to, and in what words that is said.

    Raises RunError for a damaged run, UsageError for a layer that is in none, BadInput for a
    lexicon that cannot be read.
    """
    options, say = options or AnalyzeOptions(), reporter or Silent()
    options.check()
    reader = Reader(read_lexicon(options.kinds) if options.kinds else None)
    reason = "of --kinds" if options.kinds else "the lexicon that ships"
    say.choice("kinds", Choice(", ".join(reader.finder.names), reason))
    return analyze(read_subjects(runs, options.layers), reader, options)


def read_subjects(runs: Sequence[str | Path], layers: Sequence[str] = ()) -> tuple[Subject, ...]:
    """Runs and those of their layers that are asked for, opened.

    Raises RunError for a damaged run, UsageError for a layer that is in none of them.
    """
    if not runs:
        raise UsageError("there is no run to analyse", hint="give the folder of one")
    opened = [load_run(path) for path in runs]
    for run in opened:
        check_manifest(run)
    _check_layers(opened, layers)
    names = _names([Path(path).resolve().name for path in runs])
    return tuple(
        Subject(name, run, _parts(run, layers)) for name, run in zip(names, opened, strict=True)
    )


def analyze(subjects: Sequence[Subject], reader: Reader, options: AnalyzeOptions) -> Analysis:
    """All figures of runs that are open."""
    found = [reading for subject in subjects for reading in readings(subject.labels, reader)]
    mains = (*reader.finder.mains, NO_KIND)
    return Analysis(
        settings=_settings(subjects, options),
        kinds=reader.finder.names,
        mains=mains,
        rows=tuple(row for subject in subjects for row in _rows(subject, reader)),
        apart=(*_runs_apart(subjects, reader, options.top), *_layers(subjects, reader, options)),
        examples=examples(found, mains),
        unknown=unknown(found, reader),
        notes=_notes(subjects),
    )


def _check_layers(runs: Sequence[Run], layers: Sequence[str]) -> None:
    """Every layer must be in a run, and every run must have one that is asked for."""
    known = [[name for place in run_places(run) for name in place.names] for run in runs]
    for layer in layers:
        if not any(layer in names for names in known):
            choose_places([place for run in runs for place in run_places(run)], [layer])
    for run, names in zip(runs, known, strict=True):
        if layers and not set(layers) & set(names):
            tensors = ", ".join(place.tensor for place in run_places(run))
            raise UsageError(
                f"{run.path} has none of the layers asked for", hint=f"its layers are {tensors}"
            )


def _parts(run: Run, layers: Sequence[str]) -> tuple[Part, ...]:
    places, names = run_places(run), display_names(run)
    known = {name for place in places for name in place.names}
    chosen = choose_places(places, [layer for layer in layers if layer in known])
    return tuple(
        Part(
            place.tensor,
            names[place.tensor],
            tuple(label for label in run.labels if label.layer == place.tensor),
        )
        for place in places
        if place in chosen
    )


def _names(names: Sequence[str]) -> list[str]:
    """Names that differ: the second "run" is "run (2)"."""
    found: list[str] = []
    for name in names:
        number, unique = 1, name
        while unique in found:
            number += 1
            unique = f"{name} ({number})"
        found.append(unique)
    return found


def _rows(subject: Subject, reader: Reader) -> list[Figures]:
    rows = [figures(subject.name, part.name, part.labels, reader) for part in subject.layers]
    if len(rows) > 1:
        rows.append(figures(subject.name, None, subject.labels, reader))
    return rows


def _runs_apart(subjects: Sequence[Subject], reader: Reader, top: int) -> list[Apart]:
    said = [readings(subject.labels, reader) for subject in subjects]
    if len(said) < 2:
        return []
    return [
        _apart(subject.name, None, said[place], _others(said, place), top)
        for place, subject in enumerate(subjects)
    ]


def _layers(subjects: Sequence[Subject], reader: Reader, options: AnalyzeOptions) -> list[Apart]:
    found = []
    for subject in subjects:
        said = [readings(part.labels, reader) for part in subject.layers]
        if len(said) > 1:
            found += [
                _apart(subject.name, part.name, said[place], _others(said, place), options.top)
                for place, part in enumerate(subject.layers)
            ]
    return found


def _others(groups: Sequence[Sequence[Reading]], place: int) -> list[Reading]:
    return [unit for other, group in enumerate(groups) if other != place for unit in group]


def _apart(
    run: str, layer: str | None, here: Sequence[Reading], there: Sequence[Reading], top: int
) -> Apart:
    words = words_apart(here, there)
    return Apart(
        run=run,
        layer=layer,
        units=len(here),
        others=len(there),
        more=tuple(score for score in words if score.z > 0)[:top],
        less=tuple(sorted((s for s in words if s.z < 0), key=lambda s: (s.z, s.word))[:top]),
    )


def _settings(subjects: Sequence[Subject], options: AnalyzeOptions) -> dict[str, Any]:
    return {
        "kinds": {"sha256": sha256_file(options.kinds)} if options.kinds else "shipped",
        "prior": PRIOR,
        "runs": [_run_facts(subject) for subject in subjects],
        "top": options.top,
    }


def _run_facts(subject: Subject) -> dict[str, Any]:
    manifest = subject.run.manifest
    return {
        "name": subject.name,
        "model": dict(manifest["model"]),
        "bundle": manifest["bundle"]["sha256"],
        "probe": manifest["probe"]["sha256"],
        "layers": [{"tensor": part.tensor, "name": part.name} for part in subject.layers],
    }


def _notes(subjects: Sequence[Subject]) -> tuple[str, ...]:
    notes = []
    for key, what in (("bundle", "captioners"), ("probe", "photos")):
        if len({subject.run.manifest[key]["sha256"] for subject in subjects}) > 1:
            notes.append(f"the runs have different {what}, so their words may differ for that too")
    return tuple(notes)
