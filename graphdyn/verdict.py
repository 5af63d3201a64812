"""Verdicts: a measured mean against a published band, and a gain over paired seeds against its least.

The mean decides as it is printed, rounded to hundredths of a point. An interval of a gain is of the spread over
seeds alone: percentiles of the bootstrap of paired differences, see :mod:`graphdyn.comparison` for how short they
are with few seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphdyn.comparison import bootstrap
from graphdyn.keys import Key

LEVEL = 0.95
INSIDE, OUTSIDE, REPORTED = "inside", "OUTSIDE", "reported"


def percent(share: float) -> float:
    """In per cent, to the hundredth that is printed and judged."""
    return round(100 * share, 2)


def within(value: float, band: tuple[float, float] | None) -> str:
    """Whether a figure lies in its band, ends included; without a band it is only reported."""
    if band is None:
        return REPORTED
    return INSIDE if band[0] <= value <= band[1] else OUTSIDE


def paired_gain(
    ours: Sequence[float], theirs: Sequence[float], least: float | None
) -> dict[str, Any]:
    """Mean difference over paired seeds, with its bootstrap interval.

    Args:
        ours: One figure a seed.
        theirs: Of the same seeds in the same order.
        least: Mean difference that counts as reproduced; ``None``: reported only.

    Returns:
        ``mean``, ``low``, ``high`` (``None`` for one seed, which has no spread), ``level``, ``least``, ``verdict``.
    """
    gaps = np.subtract(ours, theirs)
    key = Key(0).fold("paired gain")
    found = bootstrap([gaps], lambda runs: runs[0].mean(-1), key=key, level=LEVEL)
    mean, several = round(found.value, 2), len(gaps) > 1
    return {
        "mean": mean,
        "low": round(found.low, 2) if several else None,
        "high": round(found.high, 2) if several else None,
        "level": LEVEL,
        "least": least,
        "verdict": within(mean, None if least is None else (least, float("inf"))),
    }
