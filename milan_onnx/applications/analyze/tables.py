"""An analysis as tables: for stdout, spreadsheets and the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from milan_onnx.applications.analyze.apart import WordScore
from milan_onnx.applications.analyze.result import ALL_LAYERS, Analysis, Apart, Figures
from milan_onnx.files import unwritable, write_csv

Row = Sequence[object]


@dataclass(frozen=True)
class Table:
    """A table."""

    name: str
    """Name of its file, without the suffix."""

    header: tuple[str, ...]
    """What each column is called."""

    rows: tuple[Row, ...]
    """Cells; None where there is nothing."""


def tables(analysis: Analysis) -> tuple[Table, ...]:
    """All figures, one fact a row where a table would be too wide."""
    return (
        layers_table(analysis),
        _kinds(analysis),
        _speech(analysis),
        _histogram("lengths", "words", [(row, row.lengths) for row in analysis.rows]),
        _histogram("complexity", "complexity", [(row, row.complexities) for row in analysis.rows]),
        _words(analysis),
        _examples(analysis),
        Table("unknown", ("word", "units"), tuple(analysis.unknown)),
    )


def write_tables(folder: Path, analysis: Analysis, more: Sequence[Table] = ()) -> list[Path]:
    """Write each table, and ``more``, as a CSV file of a folder, which is made; returns their
    paths."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    paths = []
    for table in (*tables(analysis), *more):
        paths.append(folder / f"{table.name}.csv")
        write_csv(paths[-1], table.header, table.rows)
    return paths


def layers_table(analysis: Analysis) -> Table:
    """A row a layer: counts and means."""
    header = (
        "run",
        "layer",
        "units",
        "described",
        "distinct",
        "confidence",
        "abstained",
        "correlation",
        "with a kind",
        "length",
        "complexity",
    )
    rows = tuple(
        (
            *_place(row),
            row.units,
            row.described,
            row.distinct,
            rounded(row.confidence),
            rounded(row.abstained),
            rounded(row.correlation),
            rounded(row.covered),
            rounded(row.length),
            rounded(row.complexity),
        )
        for row in analysis.rows
    )
    return Table("layers", header, rows)


def shares_table(analysis: Analysis) -> Table:
    """A row a layer: the share of its described units that each kind is the main kind of."""
    rows = tuple(
        (*_place(row), *(_share(row.mains[name], row.described) for name in analysis.mains))
        for row in analysis.rows
    )
    return Table("shares", ("run", "layer", *analysis.mains), rows)


def words_table(analysis: Analysis) -> Table:
    """A row a group of units: the words that set it apart, in one cell each way."""
    rows = tuple((a.run, group_name(a), _cell(a.more), _cell(a.less)) for a in analysis.apart)
    return Table("words", ("run", "layer", "says more", "says less"), rows)


def group_name(apart: Apart) -> str:
    """What people call a group of units."""
    return ALL_LAYERS if apart.layer is None else apart.layer


def cell_text(cell: object) -> str:
    """A cell for people: figures with 3 decimals, a dash where there is nothing."""
    if cell is None:
        return "-"
    return f"{cell:.3f}" if isinstance(cell, float) else str(cell)


def rounded(value: float | None) -> float | None:
    """A figure as it is shown: 3 decimals."""
    return None if value is None else round(value, 3) + 0.0


def _kinds(analysis: Analysis) -> Table:
    header = ("run", "layer", "kind", "units", "share", "main kind of units", "main share")
    names = dict.fromkeys([*analysis.kinds, *analysis.mains])
    rows = [
        (
            *_place(row),
            name,
            *_counted(row.kinds.get(name), row.described),
            *_counted(row.mains.get(name), row.described),
        )
        for row in analysis.rows
        for name in names
    ]
    return Table("kinds", header, tuple(rows))


def _speech(analysis: Analysis) -> Table:
    rows = [
        (*_place(row), part, *_counted(words, sum(row.speech.values())))
        for row in analysis.rows
        for part, words in row.speech.items()
    ]
    return Table("speech", ("run", "layer", "part of speech", "words", "share"), tuple(rows))


def _histogram(name: str, what: str, counted: Iterable[tuple[Figures, Mapping[int, int]]]) -> Table:
    rows = [(*_place(row), value, n) for row, counts in counted for value, n in counts.items()]
    return Table(name, ("run", "layer", what, "units"), tuple(rows))


def _words(analysis: Analysis) -> Table:
    header = ("run", "layer", "says", "word", "units", "of", "units elsewhere", "of elsewhere", "z")
    rows = [
        (a.run, group_name(a), way, s.word, s.here, a.units, s.there, a.others, s.z)
        for a in analysis.apart
        for way, scores in (("more", a.more), ("less", a.less))
        for s in scores
    ]
    return Table("words", header, tuple(rows))


def _examples(analysis: Analysis) -> Table:
    rows = [(kind, *item) for kind, items in analysis.examples.items() for item in items]
    return Table("examples", ("main kind", "description", "units"), tuple(rows))


def _place(row: Figures) -> tuple[str, str]:
    return row.run, row.name


def _counted(count: int | None, total: int) -> tuple[int | None, float | None]:
    """A count and its share; None for what has none."""
    return count, None if count is None else _share(count, total)


def _share(count: int, total: int) -> float | None:
    return rounded(count / total) if total else None


def _cell(scores: Sequence[WordScore]) -> str:
    return ", ".join(f"{score.word} {score.z:+.1f}" for score in scores)
