"""Small charts made of characters, for a terminal: two by four dots a cell, or stars where there are only letters."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

Array = np.ndarray

_BRAILLE = 0x2800
# Bit of each dot of a cell, row by row (Unicode chart U+2800).
_BITS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])


class Chart(NamedTuple):
    """Lines of characters.

    Attributes:
        lines: Of one length, the first on top.
        low: What the lowest dot stands for; NaN where nothing is drawn.
        high: And the highest.
    """

    lines: list[str]
    low: float
    high: float


def chart(x: Array, y: Array, width: int, height: int, *, letters: bool = False) -> Chart:
    """A curve, from the first x to the last and from the smallest y to the largest.

    Where several points fall into one column of dots their mean is drawn; columns are joined by vertical
    strokes, and those without a point by straight lines between their neighbours.

    Args:
        x: (n,) ascending.
        y: (n,) points that are not finite are left out.
        width: Characters.
        height: Lines.
        letters: Draw with ``*``, for terminals that show nothing else.

    Returns:
        ``height`` lines of ``width`` characters; blank where there is nothing to draw.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    known = np.isfinite(x) & np.isfinite(y)
    if not known.any():
        return Chart([" " * width] * height, np.nan, np.nan)
    across, down = (1, 1) if letters else (2, 4)
    values = _means(x[known], y[known], across * width)
    dots = _dots(values, down * height)
    if letters:
        lines = ["".join("*" if dot else " " for dot in row) for row in dots]
    else:
        cells = dots.reshape(height, 4, width, 2).transpose(0, 2, 1, 3)
        codes = (cells * _BITS).sum((2, 3))
        lines = ["".join(chr(_BRAILLE + code) if code else " " for code in row) for row in codes]
    return Chart(lines, float(values.min()), float(values.max()))


def _dots(values: Array, rows: int) -> Array:
    """(rows, columns) whether there is a dot; row 0 is the top."""
    heights = _levels(values, rows)
    dots = np.zeros((rows, values.size), bool)
    for column, level in enumerate(heights):
        # Half of the way to the neighbour before: a steep curve stays one stroke.
        before = heights[max(0, column - 1)]
        low, high = sorted((level, before + np.sign(level - before)))
        dots[rows - 1 - high : rows - low, column] = True
    return dots


def _means(x: Array, y: Array, columns: int) -> Array:
    """(columns,) mean of the points of each column, straight lines between those that have any."""
    span = x[-1] - x[0]
    place = np.zeros(x.size, int) if span <= 0 else ((x - x[0]) / span * (columns - 1)).round()
    place = place.astype(int)
    count = np.bincount(place, minlength=columns)
    total = np.bincount(place, y, minlength=columns)
    full = np.flatnonzero(count)
    return np.interp(np.arange(columns), full, total[full] / count[full])


def _levels(values: Array, rows: int) -> Array:
    """(n,) rows counted from the bottom; all in the middle where the values are one."""
    low, high = values.min(), values.max()
    if not high > low:
        return np.full(values.size, (rows - 1) // 2)
    return ((values - low) / (high - low) * (rows - 1)).round().astype(int)
