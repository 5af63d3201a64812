"""How often one method beats another, and what share of runs passes a score, with intervals for few seeds.

Valid where runs are independent within a method. Percentile bootstraps of such shares fail with few runs: where
every run of one method beats every run of the other they have no width at all. Sources: Mann & Whitney 1947;
Agarwal et al. 2021 (probability of improvement, performance profiles); Newcombe 2006, "Confidence intervals
for an effect size measure based on the Mann-Whitney statistic, part 2" (method 5, on the variance of Hanley & McNeil
1982); Wilson 1927; Zou & Donner 2008 (intervals of sums from intervals of terms).

Shapes: scores are given by task, each with R_k runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtri

from graphdyn.errors import InputError
from graphdyn.survival import Interval

Pairs = Sequence[tuple[np.ndarray, np.ndarray]]


def improvement(pairs: Pairs) -> np.ndarray:
    """P(X > Y) + P(X = Y) / 2 for a run X of one method and an independent one Y of another, mean over tasks.

    The statistic of Mann & Whitney over the number of pairs; all pairs of runs count, not only equal seeds.

    Args:
        pairs: (..., R_k) scores of both methods in each task; leading axes are resamplings.
    """
    shares = []
    for x, y in pairs:
        gap = np.sign(x[..., :, None] - y[..., None, :])
        shares.append(0.5 + gap.mean((-2, -1)) / 2)
    return np.mean(shares, axis=0)


def improvement_interval(pairs: Pairs, level: float = 0.95) -> Interval:
    """:func:`improvement` with Newcombe's score interval in each task, put together over tasks.

    Too wide where seeds are shared and their effect is large: it takes the runs of both methods for independent.

    Args:
        pairs: (R_k,) scores of both methods in each task.
        level: Of the interval.

    Raises:
        InputError: If there is no task, or one has no run.
    """
    if not pairs or min(len(r) for pair in pairs for r in pair) == 0:
        raise InputError("improvement_interval got a task without runs; give at least one of each.")
    return _mean_of([_newcombe(*pair, level) for pair in pairs])


def profile(runs: Sequence[np.ndarray], thresholds: np.ndarray) -> np.ndarray:
    """Share of runs that score above each threshold, mean over tasks: the performance profile.

    Args:
        runs: (..., R_k) scores of each task.
        thresholds: (T,) scores.

    Returns:
        (..., T).
    """
    return np.mean([(r[..., None] > thresholds).mean(-2) for r in runs], axis=0)


def profile_band(
    runs: Sequence[np.ndarray], thresholds: np.ndarray, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """(T,) and (T,) limits of :func:`profile`, each threshold by itself: Wilson's in each task, put together.

    Args:
        runs: (R_k,) scores of each task.
        thresholds: (T,) scores.
        level: Of the limits at one threshold.
    """
    found = [
        _mean_of([wilson(int((r > t).sum()), len(r), level) for r in runs]) for t in thresholds
    ]
    return np.array([f.low for f in found]), np.array([f.high for f in found])


def wilson(hits: int, n: int, level: float = 0.95) -> Interval:
    """A share of n independent runs with Wilson's score interval.

    Args:
        hits: How many of them.
        n: Of how many, at least one.
        level: Of the interval.
    """
    z2, share = _deviate(level) ** 2, hits / n
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    reach = np.sqrt(z2 * share * (1 - share) / n + z2**2 / (4 * n * n)) / (1 + z2 / n)
    return Interval(share, float(max(middle - reach, 0.0)), float(min(middle + reach, 1.0)))


def _newcombe(x: np.ndarray, y: np.ndarray, level: float) -> Interval:
    """Values theta from which the measured share lies within z of their own standard deviations."""
    share, z = float(improvement([(x, y)])), _deviate(level)
    rest, count = (len(x) + len(y)) / 2 - 1, len(x) * len(y)

    def outside(theta: float) -> float:
        alike = (1 - theta) / (2 - theta) + theta / (1 + theta)
        variance = theta * (1 - theta) * (1 + rest * alike) / count
        return (theta - share) ** 2 - z * z * variance

    return Interval(share, _end(outside, share, 0.0), _end(outside, share, 1.0))


def _end(outside: Callable[[float], float], inside: float, end: float) -> float:
    if inside == end:
        return end
    near = abs(inside - 1e-12)  # at 0 and 1 itself the variance vanishes
    root: Any = brentq(outside, near, end, xtol=1e-10)
    return float(root)


def _mean_of(parts: Sequence[Interval]) -> Interval:
    """Mean of independent numbers; distances to the ends add in squares, as standard errors do."""
    value, low, high = np.array(parts).T
    mean = float(value.mean())
    down, up = (float(np.sqrt((d**2).sum())) / len(parts) for d in (value - low, high - value))
    return Interval(mean, mean - down, mean + up)


def _deviate(level: float) -> float:
    if not 0 < level < 1:
        raise InputError(f"the level of an interval is {level}; it must lie between 0 and 1.")
    return float(ndtri(0.5 + level / 2))
