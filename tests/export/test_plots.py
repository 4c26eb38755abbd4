import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.plots import HEIGHT, WIDTH, Point, frontier, plot, svg, sweep_table

SMALL, BETTER, WORSE, LARGE = (
    Point("b64", 89_800_000, 0.097, 0.81),
    Point("K, V int8", 93_100_000, 0.072, 0.84),
    Point("b32", 96_400_000, 0.078, 0.84),
    Point("<int8> & all", 144_800_000, 0.0036, 0.96),
)
POINTS = [LARGE, WORSE, SMALL, BETTER]
SVG = "{http://www.w3.org/2000/svg}"


def test_the_table_goes_by_size_and_marks_what_nothing_beats() -> None:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in sweep_table(POINTS).splitlines()[2:]]
    assert rows == [
        ["b64", "89.8", "0.0970", "81.0%", "yes"],
        ["K, V int8", "93.1", "0.0720", "84.0%", "yes"],
        ["b32", "96.4", "0.0780", "84.0%", ""],
        ["<int8> & all", "144.8", "0.0036", "96.0%", "yes"],
    ]


@given(
    st.lists(
        st.builds(Point, st.just("p"), st.integers(1, 9), st.sampled_from([0.1, 0.2, 0.3]), st.just(1.0)), min_size=1
    )
)
def test_the_frontier_is_what_no_other_beats(points: list[Point]) -> None:
    beaten = {
        one
        for one in points
        for other in points
        if other.bytes <= one.bytes and other.kl <= one.kl and (other.bytes, other.kl) != (one.bytes, one.kl)
    }
    assert set(frontier(points)) == set(points) - beaten


def marks(text: str) -> list[tuple[float, float]]:
    return [(float(c.attrib["cx"]), float(c.attrib["cy"])) for c in ET.fromstring(text).iter(f"{SVG}circle")]


def test_the_plot_shows_every_point_where_it_belongs() -> None:
    text = svg(POINTS)
    places = marks(text)  # by size
    assert len(places) == 4
    assert places == sorted(places)
    lowest_kl_first = sorted(zip([0.097, 0.072, 0.078, 0.0036], places, strict=True))
    heights = [y for _, (_, y) in lowest_kl_first]
    assert heights == sorted(heights, reverse=True)  # y grows downwards
    assert all(0 < x < WIDTH and 0 < y < HEIGHT for x, y in places)
    labels = [element.text for element in ET.fromstring(text).iter(f"{SVG}text")]
    assert {point.label for point in POINTS} < set(labels)
    (line,) = ET.fromstring(text).iter(f"{SVG}polyline")
    assert line.attrib["points"].split() == [f"{x:.1f},{y:.1f}" for x, y in (places[0], places[1], places[3])]


def test_ten_times_the_loss_is_the_same_distance_everywhere() -> None:
    heights = [y for _, y in marks(svg([Point(str(kl), 1000 + i, kl, 1) for i, kl in enumerate((1.0, 0.1, 0.01))]))]
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1], abs=0.11)


def test_labels_of_near_points_do_not_cover_each_other() -> None:
    near = [Point(f"label {i}", 90_000_000 + i, 0.05, 0.9) for i in range(5)]
    tall = [
        float(t.attrib["y"]) for t in ET.fromstring(svg(near)).iter(f"{SVG}text") if (t.text or "").startswith("label")
    ]
    assert min(b - a for a, b in zip(sorted(tall), sorted(tall)[1:], strict=False)) >= 12


def test_the_same_points_make_the_same_bytes(tmp_path: Path) -> None:
    plot(POINTS, tmp_path / "one.svg")
    plot(POINTS[::-1], tmp_path / "other.svg")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "other.svg").read_bytes()


@pytest.mark.parametrize(
    "points",
    [
        [Point("one", 5, 0.1, 1)],
        [Point("equal", 5, 0.0, 1), Point("equal too", 5, -1e-12, 1)],
        [Point("huge", 10**12, 30, 0)],
    ],
    ids=["one point", "no loss", "far out"],
)
def test_any_points_can_be_plotted(points: list[Point]) -> None:
    assert all(0 < x < WIDTH and 0 < y < HEIGHT for x, y in marks(svg(points)))


@pytest.mark.parametrize("points", [[], [Point("x", 1, float("nan"), 1)], [Point("x", 0, 1, 1)]])
def test_what_cannot_be_plotted_is_refused(points: list[Point]) -> None:
    with pytest.raises(ValueError, match="a plot needs points"):
        svg(points)
