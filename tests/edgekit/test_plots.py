import math
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.plots import Bar, Curve, Group, Panel, bars, panels, ticks

SVG = "{http://www.w3.org/2000/svg}"
GROUPS = [
    Group("small", (Bar("a", 4.0, "4 tokens/s"), Bar("<b>", 1.0, "1 tokens/s"))),
    Group("large", (Bar("a", 100.0, "100 tokens/s"), Bar("<b>", 200.0, "200 tokens/s"))),
]
PANELS = [
    Panel("first", "length", (Curve("a", ((0, 10), (100, 20))), Curve("b", ((0, 5), (100, 0))))),
    Panel("second", "rows", (Curve("a", ((1, 1), (8, 4))),)),
]


@given(st.lists(st.floats(1e-3, 1e9), min_size=1, max_size=20))
def test_ticks_enclose_all_values_and_are_few(values: list[float]) -> None:
    found = ticks([0, *values])
    assert found == sorted(set(found))
    assert found[0] <= 0
    assert found[-1] >= max(values) * (1 - 1e-9)
    assert 2 <= len(found) <= 10


def test_bars_are_as_long_as_their_share_of_the_group() -> None:
    drawn = [each for each in ET.fromstring(bars("title", GROUPS)).iter(f"{SVG}rect") if "class" in each.attrib]
    widths = [float(each.attrib["width"]) for each in drawn]
    assert widths[0] == widths[3]
    assert [widths[1] / widths[0], widths[2] / widths[3]] == [pytest.approx(0.25, abs=1e-3), pytest.approx(0.5)]
    assert drawn[0].attrib["fill"] == drawn[2].attrib["fill"] != drawn[1].attrib["fill"] == drawn[3].attrib["fill"]
    heights = [float(each.attrib["y"]) for each in drawn]
    assert heights == sorted(set(heights))


def test_words_are_written_as_they_are() -> None:
    texts = [each.text for each in ET.fromstring(bars("title", GROUPS)).iter(f"{SVG}text")]
    assert {"<b>", "small", "large", "200 tokens/s"} <= set(texts)


@pytest.mark.parametrize("groups", [[], [Group("g", ())], [Group("g", (Bar("a", 0.0, ""),))]])
def test_bars_of_nothing_are_refused(groups: list[Group]) -> None:
    with pytest.raises(ValueError, match="longer than nothing"):
        bars("title", groups)


def test_curves_lie_inside_their_panel_and_higher_is_more() -> None:
    root = ET.fromstring(panels("title", PANELS))
    width, height = (float(number) for number in root.attrib["viewBox"].split()[2:])
    points = [(float(c.attrib["cx"]), float(c.attrib["cy"])) for c in root.iter(f"{SVG}circle")]
    assert len(points) == 6
    assert all(0 < x < width and 0 < y < height for x, y in points)
    assert points[1][1] < points[0][1]  # y grows downwards
    assert points[0][1] - points[1][1] == pytest.approx(2 * (points[3][1] - points[2][1]), abs=0.5)
    assert all(x < width / 2 for x, _ in points[:4])
    assert all(x > width / 2 for x, _ in points[4:])


def test_a_label_has_one_colour_in_all_panels() -> None:
    root = ET.fromstring(panels("title", PANELS))
    strokes = [each.attrib["stroke"] for each in root.iter(f"{SVG}polyline")]
    assert strokes[0] == strokes[2] != strokes[1]
    assert [each.text for each in root.iter(f"{SVG}text")].count("a") == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0])
def test_a_panel_without_a_value_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="nothing to show"):
        panels("title", [Panel("p", "x", (Curve("a", ((1, value),)),))])
