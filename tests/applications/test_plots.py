"""Plots: well-formed whatever the names, true to the figures, the same bytes again."""

from __future__ import annotations

import itertools
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milan_onnx.applications.analyze.plots import (
    Amount,
    Bar,
    Line,
    _Frame,
    _spread,
    _ticks,
    bars,
    legend,
    line_chart,
    stacked_bars,
)

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "</svg><script>alert(1)</script>\x00\x1b[31m\ud800 & \"' 漢字"
names = st.lists(st.text(max_size=60), min_size=1, max_size=4, unique=True)
numbers = st.floats(-1e6, 1e6, allow_subnormal=False)


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg.encode("utf-8", "replace"))


def widths(svg: str) -> list[float]:
    found = parsed(svg).iter(f"{SVG}rect")
    rects = [r for r in found if "segment" in r.get("class", "")]
    return [float(rect.get("width", "").removesuffix("%")) for rect in rects]


@given(names, names)
@settings(deadline=None, max_examples=40)
def test_any_names_give_well_formed_plots(labels: list[str], series: list[str]) -> None:
    stack = [Bar(text, dict.fromkeys(series, 1), text) for text in labels]
    for svg in (
        stacked_bars("key", labels[0], series[0], stack, series, series[-1]),
        bars("key", labels[0], labels[0], [Amount(text, 1.0, text) for text in labels]),
        line_chart(
            "key", labels[0], labels[0], [Line(t, (0, 1), (2, 3)) for t in labels],
            x_name=labels[0], y_name=labels[0],
        ),
    ):  # fmt: skip
        root = parsed(svg)
        assert root.tag == f"{SVG}svg"
        assert root.find(f"{SVG}title") is not None
    assert len(list(ElementTree.fromstring(legend(series)))) == len(series)


def test_names_are_text_and_nothing_else() -> None:
    svg = bars("key", HOSTILE, HOSTILE, [Amount(HOSTILE, 1.0, HOSTILE)])
    assert {element.tag for element in parsed(svg).iter()} == {
        f"{SVG}{tag}" for tag in ("svg", "title", "desc", "text", "rect")
    }
    assert "<script" not in svg


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=9))
@settings(deadline=None)
def test_shares_fill_a_bar(values: list[int]) -> None:
    series = [f"s{n}" for n in range(len(values))]
    bar = Bar("layer", dict(zip(series, values, strict=True)))
    drawn = widths(stacked_bars("key", "t", "a", [bar], series))
    assert len(drawn) == sum(value > 0 for value in values)
    assert not drawn or sum(drawn) == pytest.approx(100, abs=0.1)


def test_a_bar_of_nothing_is_empty() -> None:
    assert widths(stacked_bars("key", "t", "a", [Bar("layer", {"x": 0})], ["x"])) == []
    assert widths(bars("key", "t", "a", [Amount("none", 0.0, "0")])) == [0]
    parsed(bars("key", "t", "a", []))


def test_the_longest_bar_has_the_largest_value() -> None:
    drawn = widths(
        bars("key", "t", "a", [Amount("a", 2.0, ""), Amount("b", 4.0, ""), Amount("c", 1.0, "")])
    )
    assert drawn[1] == max(drawn)
    assert drawn[0] == pytest.approx(drawn[1] / 2, abs=0.02)


def test_what_is_left_over_is_pale() -> None:
    svg = stacked_bars("key", "t", "a", [Bar("l", {"x": 1, "rest": 1})], ["x", "rest"], "rest")
    assert "fill-0" in svg
    assert "fill-rest" in svg
    assert "fill-rest" in legend(["x", "rest"], "rest")


@given(numbers, numbers)
@settings(deadline=None)
def test_ticks_hold_the_range(one: float, other: float) -> None:
    low, high = min(one, other), max(one, other)
    if high - low < 1e-3 * max(1.0, abs(low), abs(high)):
        return
    ticks = _ticks(low, high)
    slack = 1e-6 * (high - low)
    assert ticks[0] <= low + slack
    assert ticks[-1] >= high - slack
    assert 2 <= len(ticks) <= 12
    assert all(a < b for a, b in itertools.pairwise(ticks))


@given(st.lists(st.floats(26, 276), min_size=1, max_size=14))
@settings(deadline=None)
def test_names_of_lines_do_not_lie_on_each_other(wanted: list[float]) -> None:
    places = _spread(wanted, _Frame((0, 1), (0, 1), 26, 250))
    ordered = sorted(places)
    assert all(b - a >= 14 - 1e-9 for a, b in itertools.pairwise(ordered))
    assert ordered[0] >= 26 - 1e-9
    assert ordered[-1] <= 276 + 1e-9
    order = sorted(range(len(wanted)), key=lambda place: (wanted[place], place))
    assert [places[place] for place in order] == ordered


def test_a_chart_draws_lines_bands_and_names() -> None:
    lines = [
        Line("nouns", (0, 10, 20), (90, 60, 30), (85, 50, 20), (95, 70, 40)),
        Line("random", (0, 10, 20), (90, 80, 75)),
    ]
    svg = line_chart(
        "ablation", "Accuracy", "falls", lines, x_name="%", y_name="%", y_range=(0, 100)
    )
    root = parsed(svg)
    drawn = [element.get("points", "") for element in root.iter(f"{SVG}polyline")]
    assert drawn == ["0,100 500,400 1000,700", "0,100 500,200 1000,250"]
    assert len(list(root.iter(f"{SVG}polygon"))) == 1
    texts = {element.text for element in root.iter(f"{SVG}text")}
    assert {"nouns", "random", "0", "100", "20"} <= texts
    assert svg == line_chart(
        "ablation", "Accuracy", "falls", lines, x_name="%", y_name="%", y_range=(0, 100)
    )


def test_more_lines_than_colours_are_dashed() -> None:
    lines = [Line(f"line {n}", (0, 1), (n, n)) for n in range(10)]
    svg = line_chart("k", "t", "a", lines, x_name="x", y_name="y")
    assert svg.count("dash-1") == 2
    assert legend([line.name for line in lines], lines=True).count("dash-1") == 2


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [Line("none", (), ())],
        [Line("short", (0, 1), (1,))],
        [Line("half a band", (0, 1), (1, 2), low=(0, 1))],
        [Line("nan", (0, 1), (1, float("nan")))],
    ],
)
def test_what_cannot_be_drawn_is_refused(lines: list[Line]) -> None:
    with pytest.raises(ValueError, match=r"line|point"):
        line_chart("k", "t", "a", lines, x_name="x", y_name="y")


def test_a_flat_line_has_axes() -> None:
    parsed(line_chart("k", "t", "a", [Line("flat", (3,), (5,))], x_name="x", y_name="y"))
