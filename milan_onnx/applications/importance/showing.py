"""Ablation curves as tables and plots, for `milan_onnx.applications.analyze`'s page."""

from __future__ import annotations

from collections.abc import Sequence

from milan_onnx.applications.analyze.page import Section
from milan_onnx.applications.analyze.plots import Line, line_chart
from milan_onnx.applications.analyze.tables import Table
from milan_onnx.applications.importance.result import RANDOM, Curve, Importance

KIND = "kind:"
LINES = 7
"""Criteria drawn in one plot: more cannot be told apart."""
ABOUT = (
    "Units are ranked by a criterion of their descriptions and set to zero in steps, those of the "
    "largest values first. The more accuracy is lost beside as many units drawn at random (the "
    "band spans the draws), the more the network needs what the criterion counts."
)


def tables(found: Importance) -> tuple[Table, ...]:
    """Curves, classes and, where each unit was ablated alone, units: ``importance`` is what a
    policy's max_importance reads (docs/audit.md)."""
    made = [curves_table(found), steps_table(found), classes_table(found)]
    if found.loss is not None:
        rows = tuple((*unit, round(value, 6) + 0.0) for unit, value in found.loss.items())
        made.append(Table("importance", ("layer", "unit", "importance"), rows))
    return tuple(made)


def curves_table(found: Importance) -> Table:
    """A row a criterion: mean accuracy over the steps, at the last, and beside random units."""
    random = found.curves[0]
    rows = tuple(
        (
            curve.name,
            f"{curve.mean:.3f}",
            f"{curve.accuracy[-1]:.3f}",
            "" if curve is random else f"{curve.mean - random.mean:+.3f}",
        )
        for curve in found.curves
    )
    header = ("ablated by", "mean accuracy", f"with {found.ablated[-1]} units", "less random")
    return Table("criteria", header, rows)


def steps_table(found: Importance) -> Table:
    """A row a criterion and step."""
    rows = tuple(
        (curve.name, units, round(value, 6), round(low, 6), round(high, 6))
        for curve in found.curves
        for units, value, low, high in zip(
            found.ablated, curve.accuracy, curve.low, curve.high, strict=True
        )
    )
    return Table("curves", ("ablated by", "units", "accuracy", "least", "most"), rows)


def classes_table(found: Importance) -> Table:
    """A row a class: accuracy without ablation, and at each criterion's last step."""
    header = ("class", "whole", *(curve.name for curve in found.curves))
    rows = tuple(
        (name, round(whole, 6), *(round(curve.classes[name], 6) for curve in found.curves))
        for name, whole in found.classes.items()
    )
    return Table("classes", header, rows)


def section(found: Importance) -> Section:
    """The part of the page."""
    random, criteria = found.curves[0], found.curves[1:]
    kinds = [curve for curve in criteria if curve.name.startswith(KIND)]
    others = [curve for curve in criteria if not curve.name.startswith(KIND)]
    groups = (("Kinds of description", kinds), ("Words, length and scores", others))
    plots = [
        (heading, _plot(found, f"ablation-{number}", heading, [random, *curves[:LINES]]))
        for number, (heading, curves) in enumerate(groups)
        if curves
    ]
    return Section(
        title="Importance by ablation",
        about=f"{ABOUT} {found.images:,} labelled photos, {found.units:,} units.",
        plots=plots,
        table=curves_table(found),
    )


def _plot(found: Importance, key: str, title: str, curves: Sequence[Curve]) -> str:
    x = [count / found.units for count in found.ablated]
    lines = [
        Line(
            curve.name.removeprefix(KIND),
            x,
            curve.accuracy,
            curve.low if curve.name == RANDOM else None,
            curve.high if curve.name == RANDOM else None,
        )
        for curve in curves
    ]
    about = "; ".join(f"{line.name}: {line.y[0]:.3f} to {line.y[-1]:.3f}" for line in lines)
    return line_chart(key, title, about, lines, x_name="share of units ablated", y_name="accuracy")
