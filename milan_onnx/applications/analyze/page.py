"""The page of an analysis: one offline HTML file with plots and tables, and no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from milan_onnx.applications.analyze.apart import WordScore
from milan_onnx.applications.analyze.plots import Amount, Bar, bars, legend, stacked_bars
from milan_onnx.applications.analyze.result import NO_KIND, Analysis, Apart, Figures
from milan_onnx.applications.analyze.speech import PARTS
from milan_onnx.applications.analyze.tables import (
    Table,
    cell_text,
    group_name,
    layers_table,
    tables,
)
from milan_onnx.files import write_bytes
from milan_onnx.labels.pages import page_style, render, template

if TYPE_CHECKING:
    from markupsafe import Markup

PACKAGE = "milan_onnx.applications.analyze"
MORE, LESS = 0, 5
"""Colours of words that are said more, and less."""


@dataclass(frozen=True)
class Section:
    """A part of the page that another module draws."""

    title: str
    """Its heading."""

    about: str
    """What it shows and how to read it, one paragraph."""

    plots: Sequence[tuple[str, str]]
    """Figures, each a heading and HTML (of `plots`), shown as it stands."""

    table: Table | None = None
    """The figures behind them."""


def write_page(path: Path, analysis: Analysis, sections: Sequence[Section] = ()) -> None:
    """Write an analysis as one HTML file; ``sections`` come after its own."""
    write_bytes(path, page(analysis, sections))


def page(analysis: Analysis, sections: Sequence[Section] = ()) -> bytes:
    """The page, in UTF-8. Equal analyses give equal bytes."""
    from markupsafe import Markup

    return render(
        template(PACKAGE, "analyze.html.j2"),
        style=page_style() + template(PACKAGE, "plots.css") + template(PACKAGE, "analyze.css"),
        title=", ".join(analysis.runs),
        facts=_facts(analysis),
        notes=analysis.notes,
        coverage=analysis.coverage,
        several=len(analysis.runs) > 1,
        kinds=[(run, Markup(_kinds(analysis, run, n))) for n, run in enumerate(analysis.runs)],
        kinds_key=Markup(legend(analysis.mains, NO_KIND)),
        speech=[(run, Markup(_speech(analysis, run, n))) for n, run in enumerate(analysis.runs)],
        speech_key=Markup(legend(PARTS, PARTS[-1])),
        sizes=[(run, *_sizes(analysis, run, n)) for n, run in enumerate(analysis.runs)],
        apart=[_apart(group, number) for number, group in enumerate(analysis.apart)],
        examples=analysis.examples,
        unknown=analysis.unknown,
        cell_text=cell_text,
        layers=layers_table(analysis),
        tables=[table for table in tables(analysis) if table.name in ("kinds", "speech", "words")],
        sections=[(s, [(heading, Markup(plot)) for heading, plot in s.plots]) for s in sections],
    )


def _facts(analysis: Analysis) -> dict[str, str]:
    facts = {}
    for run in analysis.settings["runs"]:
        model = f"{run['model'].get('name')} (sha256 {str(run['model'].get('sha256'))[:12]})"
        facts[f"Model of {run['name']}" if len(analysis.runs) > 1 else "Model"] = model
    described = sum(row.described for row in analysis.rows if row.layer is not None)
    kinds = analysis.settings["kinds"]
    return facts | {
        "Described units": f"{described:,}",
        "Kinds": "the lexicon that ships"
        if kinds == "shipped"
        else f"sha256 {kinds['sha256'][:12]}",
    }


def _rows(analysis: Analysis, run: str) -> list[Figures]:
    return [row for row in analysis.rows if row.run == run]


def _kinds(analysis: Analysis, run: str, number: int) -> str:
    rows = _rows(analysis, run)
    return stacked_bars(
        f"kinds-{number}",
        f"Main kinds of description, {run}",
        "; ".join(_account(row, row.mains, row.described) for row in rows),
        [Bar(row.name, row.mains, f"{row.described:,} units") for row in rows],
        analysis.mains,
        NO_KIND,
    )


def _speech(analysis: Analysis, run: str, number: int) -> str:
    rows = _rows(analysis, run)
    return stacked_bars(
        f"speech-{number}",
        f"Parts of speech, {run}",
        "; ".join(_account(row, row.speech, sum(row.speech.values())) for row in rows),
        [Bar(row.name, row.speech, f"{sum(row.speech.values()):,} words") for row in rows],
        PARTS,
        PARTS[-1],
    )


def _account(row: Figures, counts: Mapping[str, int], total: int) -> str:
    """A row in words, for those who do not see the plot."""
    shares = ", ".join(f"{name} {100 * n / total:.0f} %" for name, n in counts.items() if n)
    return f"{row.name}: {shares or 'nothing'}"


def _sizes(analysis: Analysis, run: str, number: int) -> tuple[Markup, Markup]:
    """Mean length and mean complexity of each layer's descriptions."""
    from markupsafe import Markup

    rows = _rows(analysis, run)
    plots = []
    for what, values in (
        ("length", [row.length for row in rows]),
        ("complexity", [row.complexity for row in rows]),
    ):
        cells = [
            Amount(row.name, value or 0.0, "–" if value is None else f"{value:.2f}")
            for row, value in zip(rows, values, strict=True)
        ]
        about = "; ".join(f"{cell.label}: {cell.text}" for cell in cells)
        title = f"Mean {what}, {run}"
        plots.append(Markup(bars(f"{what}-{number}", title, about, cells, above=True)))
    return plots[0], plots[1]


@dataclass(frozen=True)
class _Shown:
    """The words that set one group apart, drawn."""

    title: str
    """The group."""

    against: str
    """What it is held against."""

    more: Markup
    """Words that it says more."""

    less: Markup
    """Words that it says less."""


def _apart(apart: Apart, number: int) -> _Shown:
    from markupsafe import Markup

    most = max((abs(score.z) for score in (*apart.more, *apart.less)), default=0.0)

    def drawn(way: str, colour: int) -> Markup:
        scores = apart.more if way == "more" else apart.less
        rows = [Amount(s.word, abs(s.z), f"{s.z:+.1f}", _said(s, apart)) for s in scores]
        title = f"Words said {way}, {apart.run} {group_name(apart)}"
        about = ", ".join(f"{score.word} {score.z:+.1f}" for score in scores) or "none"
        return Markup(bars(f"{way}-{number}", title, about, rows, most=most, colour=colour))

    whole = apart.layer is None
    return _Shown(
        title=apart.run if whole else group_name(apart),
        against=f"{apart.units:,} units against {apart.others:,} of "
        + ("the other runs" if whole else f"the other layers of {apart.run}"),
        more=drawn("more", MORE),
        less=drawn("less", LESS),
    )


def _said(score: WordScore, apart: Apart) -> str:
    return f"{score.here:,} of {apart.units:,} units, elsewhere {score.there:,} of {apart.others:,}"
