"""Numbers in few characters, for a terminal."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from itertools import pairwise

_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def duration(seconds: float) -> str:
    """At most two units: ``0.4 s``, ``12 s``, ``2 min 5 s``, ``3 h 20 min``, ``2 d 4 h``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    rest = round(seconds)
    for (large, size), (small, part) in pairwise(_UNITS):
        if rest >= size:
            rest = round(rest / part)
            whole, few = divmod(rest, size // part)
            return f"{whole} {large} {few} {small}" if few else f"{whole} {large}"
    return f"{rest} s"


def count(number: float) -> str:
    """``950``, ``1.2 k``, ``34 M``, ``5.6 G``."""
    for size, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * size:
            return f"{number / size:.3g} {name}"
    return f"{number:.0f}"


def measured(value: float, se: float = math.nan) -> str:
    """A number to four digits, with its standard error to two where one is known."""
    told = "" if math.isnan(se) else f" ± {se:.2g}"
    return f"{value:.4g}{told}"


def percents(values: Sequence[float]) -> str:
    """``81.52 ± 0.41`` in per cent: mean and sample standard deviation, where there are two values or more."""
    if not values:
        return "-"
    std = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * statistics.fmean(values):.2f}{std}"


def shorten(text: str, width: int) -> str:
    """At most so many characters; what is left out is in the middle, for both ends tell names apart."""
    if len(text) <= width:
        return text
    kept = max(0, width - 1)
    return text[: kept - kept // 2] + "…" + text[len(text) - kept // 2 :]
