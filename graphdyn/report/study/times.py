"""How long methods take to a target, where some runs never get there, on each axis of cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from graphdyn.comparison import holm
from graphdyn.errors import InputError
from graphdyn.report.study.accuracy import LEVEL, STUDENT
from graphdyn.report.study.data import Cell, Study
from graphdyn.report.study.runs import Curve
from graphdyn.survival import Interval, KaplanMeier, LogRank, Times, first_hit, log_rank

SHARE = 0.95
WINDOW = 3


class Target(NamedTuple):
    """What a run has to reach on a data set.

    Attributes:
        value: Of the validation metric, as a fraction of 1.
        rule: Where it comes from.
    """

    value: float
    rule: str


class Reach(NamedTuple):
    """When the runs of a cell got there, on one axis.

    Attributes:
        curve: The share of runs that need longer.
        n: Runs, lost ones included.
        hits: How many got there.
        median: With its interval; without ends (``nan``) with too few runs.
        mean: Of min(time, budget), likewise; also where all got there at one time, which has no spread.
        budget: What is common to all methods on this data set.
    """

    curve: KaplanMeier
    n: int
    hits: int
    median: Interval
    mean: Interval
    budget: float


class Test(NamedTuple):
    """A method against the baseline, stratified by data set.

    Attributes:
        found: The log-rank test.
        holm: Its p raised for all log-rank tests of the study.
    """

    found: LogRank
    holm: float


class Hits(NamedTuple):
    """Time to target of a study.

    Attributes:
        targets: By data set; a data set without one has no times.
        reaches: By axis, data set and method.
        tests: By axis and method.
        coarse: Data sets on which most hits are at the first evaluation that can count.
    """

    targets: dict[str, Target]
    reaches: dict[tuple[str, str, str], Reach]
    tests: dict[tuple[str, str], Test]
    coarse: list[str]


def hit(study: Study) -> Hits:
    """Everything about the times of a study."""
    found = {d: t for d in study.datasets if (t := target(study, d)) is not None}
    times = {
        (axis, d, m): _times(cell, axis, found[d].value)
        for axis in study.axes
        for (d, m), cell in study.cells.items()
        if cell.runs and d in found
    }
    reaches = {at: _reach(t, _budget(times, at)) for at, t in times.items()}
    coarse = [d for d in found if _coarse(study, d, found[d].value)]
    return Hits(found, reaches, _tests(study, times), coarse)


def target(study: Study, dataset: str) -> Target | None:
    """The study's own, or else a share of what the baseline typically reaches on the data set."""
    given = (study.document.get("target") or {}).get("value")
    given = given.get(dataset) if isinstance(given, dict) else given
    if given is not None:
        return Target(float(given), "given by the study")
    base = study.cell(dataset, study.baseline)
    if base is None:
        return None
    best = [float(smooth(run.curve).max(initial=-np.inf)) for run in base.runs.values()]
    known = [b for b in best if np.isfinite(b)]
    if not known:
        return None
    rule = (
        f"{100 * SHARE:.0f} % of the median over the baseline's seeds of the best validation value"
    )
    return Target(SHARE * float(np.median(known)), rule)


def smooth(curve: Curve) -> np.ndarray:
    """Medians of three consecutive evaluations, as a hit asks for."""
    if curve.value.size < WINDOW:
        return np.empty(0)
    return np.median(np.lib.stride_tricks.sliding_window_view(curve.value, WINDOW), axis=-1)


def _times(cell: Cell, axis: str, value: float) -> Times:
    """Complete runs as they went; failed and diverged ones as if they had gone as far and never got there."""
    curves = [r.curve for r in cell.runs.values() if r.curve.value.size]
    hits = [first_hit(c.at[axis].tolist(), c.value.tolist(), value, window=WINDOW) for c in curves]
    end = max((float(c.at[axis][-1]) for c in curves), default=0.0)
    lost = sum(m.lost for m in cell.missing) + len(cell.runs) - len(curves)
    time, passed = [h.time for h in hits] + [end] * lost, [h.hit for h in hits] + [False] * lost
    return Times(np.array(time), np.array(passed, bool))


def _budget(times: dict[tuple[str, str, str], Times], at: tuple[str, str, str]) -> float:
    """Up to where every method on this data set is known; all that hit are known for ever."""
    here = [t for other, t in times.items() if other[:2] == at[:2]]
    known = [float(t.time.max()) for t in here if KaplanMeier(t)(t.time.max()) > 0]
    return min(known) if known else max(float(t.time.max()) for t in here)


def _reach(times: Times, budget: float) -> Reach:
    curve, n = KaplanMeier(times), len(times)
    median, nothing = curve.median(LEVEL), (np.nan, np.nan)
    if n < STUDENT or budget <= 0 or curve.restricted_mean(budget).se == 0:
        mean = float(curve.restricted_mean(budget).value) if budget > 0 else 0.0
        median = Interval(median.value, *nothing) if n < STUDENT else median
        ends = median, Interval(mean, *nothing)
    else:
        ends = median, curve.restricted_interval(budget, LEVEL)
    return Reach(curve, n, int(times.hit.sum()), *ends, budget)


def _coarse(study: Study, dataset: str, value: float) -> bool:
    cells = [c for m in study.methods if (c := study.cell(dataset, m)) is not None]
    seen = [s for c in cells for r in c.runs.values() if (s := smooth(r.curve)).size]
    hits = [s[0] >= value for s in seen if (s >= value).any()]
    return bool(hits) and float(np.mean(hits)) > 0.5


def _tests(study: Study, times: dict[tuple[str, str, str], Times]) -> dict[tuple[str, str], Test]:
    found: dict[tuple[str, str], LogRank] = {}
    for axis in study.axes:
        for method in study.methods:
            pairs = [
                (times[axis, d, method], times[axis, d, study.baseline])
                for d in study.datasets
                if (axis, d, method) in times and (axis, d, study.baseline) in times
            ]
            if method != study.baseline and (test := _log_rank(pairs)) is not None:
                found[axis, method] = test
    raised = holm([t.p for t in found.values()])
    return {at: Test(t, float(p)) for (at, t), p in zip(found.items(), raised)}


def _log_rank(pairs: Sequence[tuple[Times, Times]]) -> LogRank | None:
    if not pairs or min(len(t) for pair in pairs for t in pair) < STUDENT:
        return None
    try:
        return log_rank(pairs)
    except InputError:  # nobody hit while both were at risk
        return None
