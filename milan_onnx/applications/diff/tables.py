"""Rows of a diff: what terminal, Markdown and page show of layers and units."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from milan_onnx.applications.diff.result import LayerDiff, RunDiff, percent
from milan_onnx.applications.diff.units import ABSTAINED, UnitDiff
from milan_onnx.labels import FLAGS, UnitLabel, percent_text
from milan_onnx.labels.summary import figure_text
from milan_onnx.markdown import safe, table

UNIT_COLUMNS = (
    "layer",
    "unit",
    "unit now",
    "verdict",
    "before",
    "now",
    "correlation",
    "flags",
)
LAYER_COLUMNS = (
    "layer",
    "units",
    "by",
    "kept",
    "reworded",
    "changed",
    "gained",
    "lost",
    "share",
    "not abstained",
    "correlation",
    "dead",
)
TELLING = ("changed", "lost", "gained", "reworded", "kept", "undescribed")
"""Verdicts, what says most first."""
MOST_ROWS = 200
"""Units that a Markdown table lists: a comment on a pull request holds 65,536 characters."""


def differing(found: RunDiff) -> Iterator[tuple[LayerDiff, UnitDiff]]:
    """The units that differ, with their layers."""
    for layer in found.layers:
        for unit in layer.units:
            if unit.differs:
                yield layer, unit


def most_telling(found: RunDiff) -> list[tuple[LayerDiff, UnitDiff]]:
    """The units that differ, what says most first: changes before rewordings, what abstains in
    neither run before what does, other words before a swap within the n-best, what both runs are
    sure of before what they are not, and units that compute something else before those that
    compute the same."""

    def key(item: tuple[LayerDiff, UnitDiff]) -> tuple[int, bool, bool, float, float]:
        unit = item[1]
        known = -1.0 if unit.correlation is None else unit.correlation
        return TELLING.index(unit.verdict), not unit.trusted, unit.near, -unit.confidence, known

    return sorted(differing(found), key=key)


def unit_cells(layer: LayerDiff, unit: UnitDiff) -> list[str]:
    """The cells of a unit, by `UNIT_COLUMNS`."""
    known = "" if unit.correlation is None else figure_text(unit.correlation)
    return [
        layer.name,
        number(unit.before),
        number(unit.after),
        unit.verdict,
        text(unit.before),
        text(unit.after),
        known,
        flags_text(unit),
    ]


def layer_cells(layer: LayerDiff) -> list[str]:
    """The cells of a layer, by `LAYER_COLUMNS`."""
    verdicts = layer.count.verdicts
    counts = (verdicts[v] for v in ("kept", "reworded", "changed", "gained", "lost"))
    before, after = layer.summaries
    return [
        layer.name,
        both(before.units, after.units),
        layer.match.value,
        *map(str, counts),
        percent(layer.count.share),
        percent(layer.trusted.share) if layer.trusted.described else "–",
        figure_text(layer.figures()["correlation_median"]),
        both(*layer.flags("dead")),
    ]


def headline(found: RunDiff) -> str:
    """One sentence on all layers."""
    count, trusted = found.count, found.trusted
    if not found.differs:
        return f"the runs differ in nothing: all {count.described} descriptions are the same"
    verdicts = count.verdicts
    if not count.changed and not verdicts["reworded"]:
        other = sum(1 for _ in differing(found))
        return f"all {count.described} descriptions are the same, {other} units have other flags"
    sentence = (
        f"{count.changed} of {count.described} descriptions say something else "
        f"({percent(count.share)}): {verdicts['changed']} changed ({count.near} of them within "
        f"the n-best), {verdicts['gained']} gained, {verdicts['lost']} lost; "
        f"{verdicts['reworded']} reworded"
    )
    if trusted.described == count.described:
        return sentence
    return (
        f"{sentence}; of the {trusted.described} that abstain in neither run, "
        f"{trusted.changed} ({percent(trusted.share)})"
    )


def layer_sentence(layer: LayerDiff) -> str:
    """One sentence on a layer."""
    parts = [f"{n} {verdict}" for verdict, n in layer.count.verdicts.items() if n]
    if layer.moved:
        parts.append(f"{layer.moved} moved to another number")
    for flag in FLAGS:
        before, after = layer.flags(flag)
        parts += [f"{flag} {before} → {after}"] if before != after else []
    sure = [s.confidence for s in layer.summaries if s.confidence is not None]
    if len(sure) == 2:
        parts.append(f"confidence {percent_text(sure[0])} → {percent_text(sure[1])}")
    tested = [s.validity.correlation for s in layer.summaries if s.validity is not None]
    if len(tested) == 2:
        parts.append(f"validity {figure_text(tested[0])} → {figure_text(tested[1])}")
    names = ("correlation (median)", "same exemplars (mean)", "same n-best (mean)")
    known = zip(names, layer.figures().values(), strict=True)
    parts += [f"{name} {figure_text(value)}" for name, value in known if value is not None]
    return f"{layer.name}: {', '.join(parts)}"


def markdown(found: RunDiff, title: str) -> str:
    """The diff for a pull request or a log: figures of layers, then the units that differ."""
    lines = [f"## {safe(title)}", "", f"{safe(headline(found))}.", ""]
    lines += [*table(LAYER_COLUMNS, _safe_rows(map(layer_cells, found.layers))), ""]
    lines += [f"- {safe(note)}" for note in found.notes] + ([""] if found.notes else [])
    rows = [unit_cells(layer, unit) for layer, unit in most_telling(found)]
    if rows:
        lines += [*table(UNIT_COLUMNS, _safe_rows(rows[:MOST_ROWS])), ""]
    if len(rows) > MOST_ROWS:
        lines += [f"and {len(rows) - MOST_ROWS} more units that differ.", ""]
    return "\n".join(lines)


def number(label: UnitLabel | None) -> str:
    """A unit's number; a dash where there is none."""
    return "–" if label is None else str(label.unit)


def text(label: UnitLabel | None) -> str:
    """A description; a dash where there is none."""
    return (label.description if label else None) or "–"


def flags_text(unit: UnitDiff) -> str:
    """What became of the flags: '+dead -sparse'. Of those that stayed only ``abstained`` is
    shown."""
    labels = [label for label in (unit.before, unit.after) if label is not None]
    stayed = [ABSTAINED] if all(ABSTAINED in label.flags for label in labels) else []
    return " ".join(
        [*(f"+{f}" for f in unit.flags_gained), *(f"-{f}" for f in unit.flags_lost), *stayed]
    )


def confidence_text(unit: UnitDiff) -> str:
    """Its labels' confidence before and now: '71 % → 64 %'; empty where neither has one."""
    found = [label.confidence for label in (unit.before, unit.after) if label is not None]
    if all(value is None for value in found):
        return ""
    return " → ".join(dict.fromkeys(map(percent_text, found)))


def both(before: int, after: int) -> str:
    """A number before and after, or the one that both are."""
    return str(before) if before == after else f"{before} → {after}"


def _safe_rows(rows: Iterable[Sequence[str]]) -> Iterator[list[str]]:
    return ([safe(cell) for cell in row] for row in rows)
