"""Plots as SVG for a page: stacked bars, bars, and lines with bands.

Widths are per cent of the page's and all text keeps its size, so a plot fits a telephone and a wide
screen alike; heights are pixels. Colours are classes, which ``templates/plots.css`` sets for light
and dark pages (Okabe and Ito's, which the colour-blind can tell apart), so no style stands in an
element and the strictest content policy lets a plot be seen. Everything is drawn from the data:
equal data give equal bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from milan_onnx.progress import printable

COLOURS = 8
"""Colours that there are; series beyond take them again, lines dashed."""
NARROW = 300
"""Width that texts in a bar must fit, in pixels: a plot on a telephone."""
LETTER = 6.4
"""Width of a letter, in pixels: a little more than most take."""
LINE_HEIGHT = 14
TOP, BELOW = 26, 40
"""Room above and below the frame of a chart, in pixels; the style leaves some beside it."""
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Bar:
    """A bar of a stack: values by series."""

    label: str
    """What it is of."""

    values: Mapping[str, float]
    """Counts by series; what is not there is 0."""

    note: str = ""
    """What stands at its right end, above it."""


@dataclass(frozen=True)
class Amount:
    """A bar that stands for itself."""

    label: str
    """What it is of."""

    value: float
    """Its length; below 0 it has none."""

    text: str
    """What stands at its end."""

    about: str = ""
    """What a pointer on it is told; by default the text."""


@dataclass(frozen=True)
class Line:
    """A line of a chart."""

    name: str
    """What it is of."""

    x: Sequence[float]
    """Places, ascending."""

    y: Sequence[float]
    """A value at each."""

    low: Sequence[float] | None = None
    """Lower edge of its band; None: no band."""

    high: Sequence[float] | None = None
    """Upper edge."""


def stacked_bars(
    key: str, title: str, about: str, bars: Sequence[Bar], series: Sequence[str], rest: str = ""
) -> str:
    """Bars of one length, each divided by the shares of its series; a bar without any is empty.

    ``key``: distinguishes the plot's ids on its page. ``series``: all of them, in the order drawn.
    ``rest``: the one that is what is left over, drawn pale.
    """
    rows, step = 20, 54
    svg = _svg(key, title, about, step * len(bars))
    for place, bar in enumerate(bars):
        top = step * place
        _text(svg, _elided(bar.label, 36), x="0", y=_px(top + 13), cls="label", full=bar.label)
        _text(svg, bar.note, x="100%", y=_px(top + 13), cls="note end")
        _add(svg, "rect", x="0", y=_px(top + rows), width="100%", height="24", cls="track")
        _segments(svg, bar, series, rest, top + rows)
    return _string(svg)


def _segments(
    svg: ElementTree.Element, bar: Bar, series: Sequence[str], rest: str, top: float
) -> None:
    total = sum(bar.values.get(name, 0) for name in series)
    done = 0.0
    for number, name in enumerate(series):
        value = bar.values.get(name, 0)
        if not value:
            continue
        share, colour = value / total, "rest" if name == rest else _colour(number)
        group = _add(svg, "g")
        box = _add(
            group, "rect", x=_percent(done), y=_px(top), width=_percent(share), height="24",
            cls=f"segment fill-{colour}",
        )  # fmt: skip
        _add(box, "title").text = _clean(f"{bar.label}: {name} {_number(value)}, {_share(share)}")
        text = next((t for t in (f"{name} {_share(share)}", _share(share)) if _fits(t, share)), "")
        _text(
            group, text, x=_percent(done + share / 2), y=_px(top + 16),
            cls=f"value middle on-{colour}",
        )  # fmt: skip
        done += share


def bars(
    key: str,
    title: str,
    about: str,
    rows: Sequence[Amount],
    *,
    most: float | None = None,
    colour: int = 0,
    above: bool = False,
) -> str:
    """Bars from a common start.

    ``most``: the value of the longest possible bar, so that plots side by side have one scale; by
    default the largest there is. ``above``: labels stand above their bars, with room for long ones.
    """
    largest = max((row.value for row in rows), default=0) if most is None else most
    step, drop, start, room = (42, 20, 0.0, 0.84) if above else (24, 3, 0.34, 0.5)
    svg = _svg(key, title, about, step * len(rows))
    for place, row in enumerate(rows):
        top = step * place
        width = room * row.value / largest if row.value > 0 else 0.0
        label = _elided(row.label, 36 if above else 15)
        _text(svg, label, x="0", y=_px(top + (14 if above else 15)), cls="label", full=row.label)
        box = _add(
            svg, "rect", x=_percent(start), y=_px(top + drop), width=_percent(width), height="16",
            cls=f"segment fill-{_colour(colour)}",
        )  # fmt: skip
        _add(box, "title").text = _clean(f"{row.label}: {row.about or row.text}")
        end = _percent(start + width)
        _text(svg, row.text, x=end, y=_px(top + drop + 12), cls="note", dx="6")
    return _string(svg)


def line_chart(
    key: str,
    title: str,
    about: str,
    lines: Sequence[Line],
    *,
    x_name: str,
    y_name: str,
    y_range: tuple[float, float] | None = None,
    height: int = 320,
) -> str:
    """Lines with bands over common axes, each named at its right end.

    ``y_range``: by default from the least to the largest value, zero included where it is near.
    Raises ValueError where there is no point, one is not finite, or the lists of a line differ in
    length.
    """
    _check(lines)
    across = _span([x for line in lines for x in line.x])
    y_ticks = _ticks(*(y_range or _y_span(lines)))
    svg = _svg(key, title, about, height, cls="plot lines")
    _text(svg, y_name, x="-44", y="12", cls="axis")
    frame = _Frame(across, (y_ticks[0], y_ticks[-1]), TOP, height - TOP - BELOW)
    _axes(svg, frame, y_ticks, x_name)
    plot = _add(
        svg, "svg", y=_px(TOP), width="100%", height=_px(frame.height), viewBox="0 0 1000 1000",
        preserveAspectRatio="none", overflow="visible",
    )  # fmt: skip
    for number, line in enumerate(lines):
        _band(plot, frame, line, number)
    for number, line in enumerate(lines):
        _line(plot, frame, line, number)
    _names(svg, frame, lines)
    return _string(svg)


@dataclass(frozen=True)
class _Frame:
    """Where values lie in a chart."""

    x: tuple[float, float]
    """Values at the left and right edges."""

    y: tuple[float, float]
    """Values at the lower and upper edges."""

    top: float
    """Pixels above the upper edge."""

    height: float
    """Pixels from the lower to the upper edge."""

    def across(self, x: float) -> float:
        """How far to the right a value lies, 0 to 1."""
        return (x - self.x[0]) / (self.x[1] - self.x[0])

    def down(self, y: float) -> float:
        """How far down a value lies, 0 to 1."""
        return (self.y[1] - y) / (self.y[1] - self.y[0])

    def pixels(self, y: float) -> float:
        """How far down a value lies, in pixels of the plot."""
        return self.top + self.height * self.down(y)

    def point(self, x: float, y: float) -> str:
        """A point in thousandths."""
        return f"{_px(1000 * self.across(x))},{_px(1000 * self.down(y))}"


def _check(lines: Sequence[Line]) -> None:
    for line in lines:
        lists = [part for part in (line.x, line.y, line.low, line.high) if part is not None]
        if len({len(part) for part in lists}) != 1 or (line.low is None) != (line.high is None):
            raise ValueError(f"the lists of the line {line.name} differ in length")
        if not all(math.isfinite(value) for part in lists for value in part):
            raise ValueError(f"the line {line.name} has a point that is not finite")
    if not any(line.x for line in lines):
        raise ValueError("there is no point to draw")


def _axes(area: ElementTree.Element, frame: _Frame, y_ticks: Sequence[float], x_name: str) -> None:
    for y in y_ticks:
        at = _px(frame.pixels(y))
        _add(area, "line", x1="0", x2="100%", y1=at, y2=at, cls="rule")
        _text(area, _number(y), x="0", y=at, dx="-8", dy="4", cls="tick end")
    bottom = frame.top + frame.height
    x_ticks = [x for x in _ticks(*frame.x) if frame.x[0] <= x <= frame.x[1]]
    for x in x_ticks:
        at = _percent(frame.across(x))
        _text(area, _number(x), x=at, y=_px(bottom + 16), cls="tick middle")
    _text(area, x_name, x="100%", y=_px(bottom + 34), cls="axis end")


def _band(plot: ElementTree.Element, frame: _Frame, line: Line, number: int) -> None:
    if line.low is None or line.high is None:
        return
    upper = [frame.point(x, y) for x, y in zip(line.x, line.high, strict=True)]
    lower = [frame.point(x, y) for x, y in zip(line.x, line.low, strict=True)]
    _add(
        plot, "polygon", points=" ".join([*upper, *lower[::-1]]), cls=f"band fill-{_colour(number)}"
    )


def _line(plot: ElementTree.Element, frame: _Frame, line: Line, number: int) -> None:
    points = " ".join(frame.point(x, y) for x, y in zip(line.x, line.y, strict=True))
    dashed = f" dash-{number // COLOURS}" if number >= COLOURS else ""
    drawn = _add(plot, "polyline", points=points, cls=f"line stroke-{_colour(number)}{dashed}")
    _add(drawn, "title").text = _clean(line.name)


def _names(svg: ElementTree.Element, frame: _Frame, lines: Sequence[Line]) -> None:
    """Each line's name right of its end, moved apart where they would lie on each other."""
    beside = _add(svg, "svg", x="100%", overflow="visible", cls="direct")
    named = [(number, line) for number, line in enumerate(lines) if line.y]
    ends = [frame.pixels(line.y[-1]) for _, line in named]
    for (number, line), end, y in zip(named, ends, _spread(ends, frame), strict=True):
        colour = _colour(number)
        _add(beside, "line", x1="0", x2="14", y1=_px(end), y2=_px(y), cls=f"lead stroke-{colour}")
        _add(beside, "circle", cx="0", cy=_px(end), r="4", cls=f"fill-{colour} knob")
        name = _elided(line.name, 22)
        _text(beside, name, x="18", y=_px(y + 4), cls="label", full=line.name)


def _spread(wanted: Sequence[float], frame: _Frame) -> list[float]:
    """Places near the wanted ones, a line of text apart, in their order; ties in the given one."""
    gap = min(LINE_HEIGHT, frame.height / max(1, len(wanted) - 1))
    order = sorted(range(len(wanted)), key=lambda place: (wanted[place], place))
    places = [0.0] * len(wanted)
    last = frame.top - gap
    for place in order:
        last = places[place] = max(wanted[place], last + gap)
    last = frame.top + frame.height + gap
    for place in reversed(order):
        last = places[place] = min(places[place], last - gap)
    return places


def legend(series: Sequence[str], rest: str = "", *, lines: bool = False) -> str:
    """A list of the series of a plot with their colours, as HTML."""
    root = ElementTree.Element("ul", {"class": "key"})
    for number, name in enumerate(series):
        item = _add(root, "li")
        mark = _add(item, "svg", width="18" if lines else "12", height="12", aria_hidden="true")
        dashed = f" dash-{number // COLOURS}" if number >= COLOURS else ""
        if lines:
            _add(mark, "line", x1="0", x2="18", y1="6", y2="6",
                 cls=f"line stroke-{_colour(number)}{dashed}")  # fmt: skip
        else:
            colour = "rest" if name == rest else _colour(number)
            _add(mark, "rect", width="12", height="12", cls=f"fill-{colour}")
        _add(item, "span").text = _clean(name)
    return _string(root)


def _span(values: Sequence[float]) -> tuple[float, float]:
    """The least and the largest, apart where they are one."""
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _y_span(lines: Sequence[Line]) -> tuple[float, float]:
    values = [y for line in lines for part in (line.y, line.low, line.high) for y in part or ()]
    low, high = _span(values)
    near = 0 < low < (high - low) / 2
    return (0.0 if near else low), high


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers, about five, from the last one below to the first one above."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * n, 10) + 0.0 for n in range(first, last + 1)]


# --- elements --------------------------------------------------------------------------------


def _svg(
    key: str, title: str, about: str, height: float, *, cls: str = "plot"
) -> ElementTree.Element:
    """A plot with a name and a description for those who do not see it."""
    svg = ElementTree.Element(
        "svg",
        {
            "class": cls,
            "width": "100%",
            "height": _px(height),
            "role": "img",
            "aria-labelledby": f"{key}-title {key}-about",
            "xmlns": "http://www.w3.org/2000/svg",
        },
    )
    _add(svg, "title", id=f"{key}-title").text = _clean(title)
    _add(svg, "desc", id=f"{key}-about").text = _clean(about)
    return svg


def _add(parent: ElementTree.Element, tag: str, **attributes: str) -> ElementTree.Element:
    """A child; ``cls`` is its class, underscores in names are hyphens."""
    named = {
        "class" if name == "cls" else name.replace("_", "-"): _clean(value)
        for name, value in attributes.items()
    }
    return ElementTree.SubElement(parent, tag, named)


def _text(parent: ElementTree.Element, text: str, *, full: str = "", **attributes: str) -> None:
    """A text; ``full``: all of it, where what is shown is cut."""
    if not text:
        return
    element = _add(parent, "text", **attributes)
    element.text = _clean(text)
    if full and full != text:
        _add(element, "title").text = _clean(full)


def _string(root: ElementTree.Element) -> str:
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=False)


def _clean(text: str) -> str:
    """Text as XML may hold it."""
    return _NOT_XML.sub("\ufffd", printable(text))


def _colour(number: int) -> str:
    return str(number % COLOURS)


def _fits(text: str, share: float) -> bool:
    return LETTER * len(text) + 6 <= NARROW * share


def _elided(text: str, most: int) -> str:
    """The end of a text that is too long: names of tensors differ there."""
    return text if len(text) <= most else f"…{text[1 - most :]}"


def _px(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _percent(share: float) -> str:
    return f"{_px(100 * share)}%"


def _share(share: float) -> str:
    return f"{100 * share:.0f} %"


def _number(value: float) -> str:
    return f"{value:g}"
