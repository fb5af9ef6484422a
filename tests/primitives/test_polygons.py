"""The fast test of points in a polygon, against matplotlib's and against a loop over points."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Outline

from influence_core.errors import BadInput
from influence_core.primitives.polygons import SortedPoints, polygon_corners


def slow_inside(xy: np.ndarray, corners: np.ndarray) -> list[bool]:
    """Even-odd by a plain loop."""
    answers = []
    for x, y in xy.tolist():
        odd, m = False, len(corners)
        for i in range(m):
            (x1, y1), (x2, y2) = corners[i].tolist(), corners[(i + 1) % m].tolist()
            if min(y1, y2) <= y < max(y1, y2) and x < x1 + (y - y1) * ((x2 - x1) / (y2 - y1)):
                odd = not odd
        answers.append(odd)
    return answers


def blob(random: np.random.Generator, corners: int) -> np.ndarray:
    """A star-shaped outline, as a hand draws it."""
    angle = np.sort(random.random(corners)) * 2 * np.pi
    reach = 0.3 + random.random(corners)
    return np.stack([np.cos(angle) * reach, np.sin(angle) * reach], 1)


@pytest.mark.parametrize("seed", range(8))
def test_equals_matplotlib_for_outlines_drawn_by_hand(seed: int) -> None:
    random = np.random.default_rng(seed)
    xy, corners = random.standard_normal((4000, 2)), blob(random, 60)
    ours = SortedPoints(xy).inside(corners)
    assert 100 < ours.sum() < 3900
    np.testing.assert_array_equal(ours, Outline(np.vstack([corners, corners[:1]])).contains_points(xy))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=3, max_size=9),
    st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=1, max_size=30),
)
def test_equals_a_loop_over_points_also_where_lines_cross_and_points_lie_on_them(
    corners: list[tuple[int, int]], points: list[tuple[int, int]]
) -> None:
    outline, xy = polygon_corners(corners), np.asarray(points, float)
    assert SortedPoints(xy).inside(outline).tolist() == slow_inside(xy, outline)


def test_a_polygon_beside_all_points_holds_none() -> None:
    xy = np.random.default_rng(0).random((50, 2))
    assert not SortedPoints(xy).inside(polygon_corners([(2, 2), (3, 2), (3, 3)])).any()
    assert SortedPoints(xy).inside(polygon_corners([(-1, -1), (2, -1), (2, 2), (-1, 2)])).all()


@pytest.mark.parametrize("bad", [[], [(0, 0), (1, 1)], [(0, 0), (1, 1), (1, float("nan"))], [(0, 0, 0)] * 3, "abc",
                                 [(0, 0), (1, "x"), (2, 2)], [(0, 0)] * 2001])  # fmt: skip
def test_what_is_no_region_is_refused(bad: object) -> None:
    with pytest.raises(BadInput, match="not a region"):
        polygon_corners(bad)  # type: ignore[arg-type]
