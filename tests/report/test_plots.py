"""Charts of characters: read back dot by dot, by the names that Unicode gives them."""

import unicodedata

import numpy as np
import pytest

from graphdyn.report.plots import chart

# Dots of a braille cell by number: column and row from the top.
PLACES = {"1": (0, 0), "2": (0, 1), "3": (0, 2), "7": (0, 3), "4": (1, 0), "5": (1, 1), "6": (1, 2), "8": (1, 3)}  # fmt: skip


def dots(drawn):
    """{(column, row from the top)} of braille."""
    found = set()
    for y, line in enumerate(drawn.lines):
        for x, cell in enumerate(line):
            name = unicodedata.name(cell)
            for number in "" if cell == " " else name.removeprefix("BRAILLE PATTERN DOTS-"):
                column, row = PLACES[number]
                found.add((2 * x + column, 4 * y + row))
    return found


def heights(found, columns, rows):
    """Highest and lowest dot of each column, counted from the bottom."""
    by = [[rows - 1 - r for c, r in found if c == column] for column in range(columns)]
    return [(min(levels), max(levels)) for levels in by]


def test_a_line_is_a_diagonal():
    x = np.arange(16)
    found = dots(chart(x, 3 * x + 5, 8, 4))
    assert found == {(i, 15 - i) for i in range(16)}
    letters = chart(np.arange(4), np.arange(4), 4, 4, letters=True)
    assert letters.lines == ["   *", "  * ", " *  ", "*   "]


def test_a_fall_is_a_stroke_without_a_gap():
    x = np.arange(8)
    y = np.where(x < 4, 1.0, 0.0)
    low_high = heights(dots(chart(x, y, 4, 2)), 8, 8)
    assert low_high == [(7, 7)] * 4 + [(0, 6)] + [(0, 0)] * 3


def test_points_of_a_column_are_averaged_and_gaps_are_bridged():
    # Columns are centred on whole numbers: 0 and 0.4 fall into the first.
    drawn = chart(np.array([0, 0.4, 3]), np.array([0.0, 2.0, 7.0]), 4, 4, letters=True)
    assert (drawn.low, drawn.high) == (1.0, 7.0)
    assert drawn.lines == ["   *", "  * ", " *  ", "*   "]


def test_what_is_not_a_number_is_left_out():
    x = np.arange(6)
    y = np.array([0, np.nan, 2, np.inf, 4, np.nan])
    whole = chart(np.array([0, 2, 4]), np.array([0, 2, 4]), 5, 3)
    assert chart(x, y, 5, 3) == whole


@pytest.mark.parametrize("values", [[], [np.nan, np.inf]])
def test_nothing_to_draw_is_blank(values):
    drawn = chart(np.arange(len(values)), np.array(values), 3, 2)
    assert drawn.lines == ["   ", "   "]
    assert np.isnan([drawn.low, drawn.high]).all()


@pytest.mark.parametrize("x", [[1, 2, 3], [2, 2, 2], [5]])
def test_a_constant_is_a_line_in_the_middle(x):
    drawn = chart(np.array(x), np.full(len(x), 7.0), 4, 3, letters=True)
    assert drawn.lines == ["    ", "****", "    "]
    assert (drawn.low, drawn.high) == (7.0, 7.0)


@pytest.mark.parametrize("letters", [False, True])
def test_every_line_is_as_wide_as_was_asked(letters):
    y = np.sin(np.arange(1000) / 30)
    for width in (1, 2, 17, 80):
        for height in (1, 2, 9):
            lines = chart(np.arange(1000), y, width, height, letters=letters).lines
            assert [len(line) for line in lines] == [width] * height
