"""A course in one line: as long as it may be, gaps where nothing is known, and what rises rises."""

import math

from hypothesis import given
from hypothesis import strategies as st

from phalanx.runtime.sparkline import ASCII, BLOCKS, sparkline

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
COURSES = st.lists(st.floats(), max_size=60)
WIDTHS = st.integers(-2, 40)
HEIGHTS = st.sampled_from([BLOCKS, ASCII])


@given(COURSES, WIDTHS, HEIGHTS)
def test_it_has_one_character_a_value_and_never_more_than_fit(
    course: list[float], width: int, heights: str
) -> None:
    drawn = sparkline(course, width, heights=heights)
    assert len(drawn) == max(0, min(len(course), width))
    assert set(drawn) <= {*heights, " "}


@given(st.lists(st.floats(), max_size=40))
def test_what_is_not_finite_is_a_gap_and_nothing_else_is(course: list[float]) -> None:
    assert [each == " " for each in sparkline(course, 40)] == [not math.isfinite(each) for each in course]


@given(st.lists(NUMBERS, min_size=1, max_size=60), st.integers(1, 40))
def test_what_rises_is_drawn_rising(course: list[float], width: int) -> None:
    for values in (sorted(course), sorted(course, reverse=True)):
        for bounds in (None, (-1.0, 1.0)):
            levels = [BLOCKS.index(each) for each in sparkline(values, width, bounds=bounds)]
            assert levels == sorted(levels, reverse=values[0] > values[-1])


@given(st.lists(NUMBERS, min_size=2, max_size=40).filter(lambda values: len(set(values)) > 1))
def test_without_bounds_the_least_is_lowest_and_the_most_highest(course: list[float]) -> None:
    drawn = sparkline(course, 40)
    unit = max(map(abs, course))
    assert drawn[course.index(min(course))] == BLOCKS[0]
    if min(course) / unit < max(course) / unit:
        assert drawn[course.index(max(course))] == BLOCKS[-1]


@given(NUMBERS, st.integers(1, 60), st.integers(1, 40))
def test_a_constant_is_flat(value: float, n: int, width: int) -> None:
    assert set(sparkline([value] * n, width)) == {BLOCKS[0]}


def test_eight_heights_by_hand() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7, 8], 9) == "▁▂▃▄▅▆▇██"
    assert sparkline([-3.0, 0.25, 0.5, 2.0], 9, bounds=(0.0, 1.0)) == "▁▃▅█"


def test_neighbours_are_joined_by_the_mean_of_what_is_known() -> None:
    nan = math.nan
    # bins (0, nan), (nan, nan), (4, 8)
    assert sparkline([0.0, nan, nan, nan, 4.0, 8.0], 3, bounds=(0.0, 8.0)) == "▁ ▇"
