"""Two methods over tasks and seeds: paired differences, interquartile means, probability of improvement.

Valid where seeds are independent: they are the replication unit. Epochs or episodes of one run are not, and
on the axis of runs they shrink every interval. Both methods have the same seeds (split, initial weights,
order of targets) in the same order. Sources: Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge
of the Statistical Precipice" (interquartile mean, stratified bootstrap, probability of improvement,
profiles); Welch 1947 and Satterthwaite 1946 (degrees of freedom of a mean over tasks).

Shapes: scores are given by task, each with R_k seeds; B resamplings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import stdtrit
from scipy.stats import trim_mean

from graphdyn.errors import InputError
from graphdyn.keys import Key
from graphdyn.survival import Interval

Scores = Mapping[str, Sequence[float] | np.ndarray]


class Comparison(NamedTuple):
    """What separates two methods.

    Attributes:
        difference: Mean of first minus second over paired seeds, then over tasks, with Student's interval.
        iqm: Interquartile means of the first and of the second method, bootstrapped.
        iqm_difference: First minus second, seeds resampled in pairs.
        improvement: Probability that a run of the first beats one of the second, mean over tasks, bootstrapped.
        tasks: The paired difference of each task, with Student's interval.
    """

    difference: Interval
    iqm: tuple[Interval, Interval]
    iqm_difference: Interval
    improvement: Interval
    tasks: dict[str, Interval]


def compare(
    a: Scores, b: Scores, *, key: Key, level: float = 0.95, resamplings: int = 2000
) -> Comparison:
    """Everything there is to say of two methods.

    Args:
        a: Scores of the first, by task, one a seed.
        b: Of the second: the same tasks, the same seeds in the same order.
        key: Of the resamplings.
        level: Of all intervals.
        resamplings: B.

    Raises:
        InputError: If tasks differ, seeds differ in number, or a task has fewer than two.
    """
    first, second = _matched(a, b)
    both = [np.stack(pair, axis=-1) for pair in zip(first.values(), second.values())]
    draws = {"key": key, "level": level, "resamplings": resamplings}
    gap = {name: first[name] - second[name] for name in first}
    return Comparison(
        paired_difference([*gap.values()], level),
        (
            bootstrap([*first.values()], iqm, **draws),
            bootstrap([*second.values()], iqm, **draws),
        ),
        bootstrap(
            both,
            lambda runs: iqm([r[..., 0] for r in runs]) - iqm([r[..., 1] for r in runs]),
            **draws,
        ),
        bootstrap(both, lambda runs: improvement([(r[..., 0], r[..., 1]) for r in runs]), **draws),
        {name: paired_difference([d], level) for name, d in gap.items()},
    )


def paired_difference(gaps: Sequence[np.ndarray], level: float = 0.95) -> Interval:
    """Mean over tasks of the mean difference over seeds, with Student's interval.

    SE^2 = sum_k s_k^2 / R_k / K^2 with Satterthwaite's degrees of freedom; with one task, the paired t test.

    Args:
        gaps: (R_k,) differences by seed, of each of K tasks.
        level: Of the interval.

    Raises:
        InputError: If a task has fewer than two seeds.
    """
    if min((len(g) for g in gaps), default=0) < 2:
        raise InputError("a task has fewer than two seeds; one run has no spread, give more.")
    parts = np.array([np.var(g, ddof=1) / len(g) for g in gaps])
    spread = parts.sum()
    mean = float(np.mean([np.mean(g) for g in gaps]))
    if spread == 0:
        return Interval(mean, mean, mean)
    freedom = spread**2 / sum(v**2 / (len(g) - 1) for v, g in zip(parts, gaps))
    reach = float(stdtrit(freedom, 0.5 + level / 2) * np.sqrt(spread) / len(gaps))
    return Interval(mean, mean - reach, mean + reach)


def iqm(runs: Sequence[np.ndarray]) -> np.ndarray:
    """Interquartile mean of all runs of all tasks: the mean without the lowest and the highest quarter.

    Args:
        runs: (..., R_k) scores of each task, on one scale; leading axes are resamplings.
    """
    return trim_mean(np.concatenate([*runs], axis=-1), 0.25, axis=-1)


def improvement(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
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


def profile(runs: Sequence[np.ndarray], thresholds: np.ndarray) -> np.ndarray:
    """Share of runs that score above each threshold, mean over tasks: the performance profile.

    Args:
        runs: (..., R_k) scores of each task.
        thresholds: (T,) scores.

    Returns:
        (..., T).
    """
    return np.mean([(r[..., None] > thresholds).mean(-2) for r in runs], axis=0)


def bootstrap(
    runs: Sequence[np.ndarray],
    statistic: Callable[[list[np.ndarray]], np.ndarray],
    *,
    key: Key,
    level: float = 0.95,
    resamplings: int = 2000,
) -> Interval:
    """Percentile interval of a statistic, seeds resampled within each task.

    Percentile intervals of few seeds are too short: of the mean of 5 normal runs a 95 % interval covers
    84 %, of 10 it covers 90 %, of 40 it covers 93 %.

    Args:
        runs: (R_k,) scores of each task, or (R_k, ...) where several methods share a seed.
        statistic: From (B, R_k, ...) resampled scores of each task (and from one set without B) to (B,). Where
            scores have further axes, the seeds are the axis before them.
        key: Of the resamplings: task k draws from its own stream, whatever other tasks there are before it.
        level: Of the interval.
        resamplings: B.
    """
    arrays = [np.asarray(r) for r in runs]
    drawn = []
    for k, r in enumerate(arrays):
        ids = torch.arange(resamplings * len(r)).view(resamplings, len(r))
        drawn.append(r[key.fold("bootstrap", k).integers(ids, len(r)).numpy()])
    found = statistic(drawn)
    low, high = np.quantile(found, [0.5 - level / 2, 0.5 + level / 2])
    return Interval(float(statistic(arrays)), float(low), float(high))


def _matched(a: Scores, b: Scores) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    if set(a) != set(b) or not a:
        raise InputError(f"the methods have the tasks {sorted(a)} and {sorted(b)}; give the same.")
    first = {name: np.asarray(a[name], float) for name in a}
    second = {name: np.asarray(b[name], float) for name in a}
    for name in a:
        if first[name].shape != second[name].shape or first[name].ndim != 1:
            raise InputError(
                f"'{name}' has scores of shapes {first[name].shape} and {second[name].shape}; "
                "give one a seed, the same seeds for both."
            )
    return first, second
