"""Scores of methods: means, interquartile means, paired differences, and how many tests that makes.

Seeds are the unit. Whatever has fewer than :data:`STUDENT` of them has no interval, and a bootstrap takes
:data:`BOOTSTRAP`. All numbers are in points: hundredths of the metric.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from graphdyn.comparison import bootstrap, holm, iqm, paired_difference, paired_p
from graphdyn.improvement import improvement_interval
from graphdyn.keys import Key
from graphdyn.report.study.data import Cell, Study
from graphdyn.survival import Interval

STUDENT, BOOTSTRAP = 3, 5
DRAWS = 4000  # of the bootstrap
LEVEL = 0.95
PERCENT = f"{100 * LEVEL:.0f} %"
POINTS = 100.0


class Level(NamedTuple):
    """How well a method does, on one data set or on the mean over several.

    Attributes:
        n: Runs; of several data sets, the fewest.
        mean: Of the scores.
        std: Over seeds; of several data sets the root mean square of theirs. ``None`` for one run.
        interval: Student's, of the mean; ``None`` with too few seeds.
        iqm: Interquartile mean, mean over data sets, bootstrapped; without ends (``nan``) with too few seeds.
    """

    n: int
    mean: float
    std: float | None
    interval: Interval | None
    iqm: Interval


class Gap(NamedTuple):
    """One method minus another over paired seeds.

    Attributes:
        n: Pairs; of several data sets, the fewest.
        difference: In points; without ends (``nan``) with too few pairs.
        p: Of the paired t test; ``None`` with too few pairs.
        holm: Raised for all tests of the family.
        improvement: Probability that a run of the first beats one of the second.
    """

    n: int
    difference: Interval
    p: float | None
    holm: float | None
    improvement: Interval

    @property
    def clear(self) -> bool:
        """Whether it is more than noise, with all tests of the family in mind."""
        return self.holm is not None and self.holm < 1 - LEVEL


class Scores(NamedTuple):
    """All there is to say of scores.

    Attributes:
        cells: By data set and method.
        methods: Over the data sets on which every method has a run.
        against: Each cell minus the baseline's on its data set; one family of tests.
        pairs: Each method minus each later one, over the data sets of both; one family of tests.
        ranking: Methods, best mean first; empty if there is no data set to rank them on.
    """

    cells: dict[tuple[str, str], Level]
    methods: dict[str, Level]
    against: dict[tuple[str, str], Gap]
    pairs: dict[tuple[str, str], Gap]
    ranking: list[str]

    def gap(self, first: str, second: str) -> Gap | None:
        """One method minus another over all data sets of both."""
        if (first, second) in self.pairs:
            return self.pairs[first, second]
        found = self.pairs.get((second, first))
        return None if found is None else _turned(found)

    @staticmethod
    def tests(family: dict[tuple[str, str], Gap]) -> int:
        """How many comparisons the family makes."""
        return sum(g.p is not None for g in family.values())


def score(study: Study) -> Scores:
    """Everything about the scores of a study."""
    cells = {at: level([cell]) for at, cell in study.cells.items() if cell.runs}
    whole = study.whole
    alive = [m for m in study.methods if whole and study.cell(whole[0], m)]
    methods = {m: level([study.cells[d, m] for d in whole]) for m in alive}
    against = {}
    for (dataset, method), cell in study.cells.items():
        base = study.cell(dataset, study.baseline)
        if method != study.baseline and base is not None and cell.runs:
            against[dataset, method] = gap([(cell, base)])
    pairs = {}
    for a, b in combinations(study.methods, 2):
        both = [(study.cell(d, a), study.cell(d, b)) for d in study.datasets]
        known = [(x, y) for x, y in both if x is not None and y is not None]
        if known:
            pairs[a, b] = gap(known)
    ranking = sorted(methods, key=lambda m: -methods[m].mean)
    return Scores(cells, methods, _family(against), _family(pairs), ranking)


def level(cells: Sequence[Cell]) -> Level:
    """Of one method on its data sets, all of which have runs."""
    runs = [POINTS * cell.scores() for cell in cells]
    n = min(map(len, runs))
    std = float(np.sqrt(np.mean([np.var(r, ddof=1) for r in runs]))) if n > 1 else None
    interval = paired_difference(runs, LEVEL) if n >= STUDENT else None
    return Level(n, float(np.mean([r.mean() for r in runs])), std, interval, _iqm(runs, cells))


def _iqm(runs: Sequence[np.ndarray], cells: Sequence[Cell]) -> Interval:
    """Trimmed within each data set: their scores are not on one scale, and none of them is to be left out."""

    def statistic(drawn: Sequence[np.ndarray]) -> np.ndarray:
        return np.mean([iqm([r]) for r in drawn], axis=0)

    if min(map(len, runs)) < BOOTSTRAP:
        return Interval(float(statistic(runs)), np.nan, np.nan)
    key = Key(0).fold("study", "iqm", cells[0].method)
    return bootstrap(runs, statistic, key=key, level=LEVEL, resamplings=DRAWS)


def gap(pairs: Sequence[tuple[Cell, Cell]]) -> Gap:
    """Of two methods on their data sets; the p value stands alone until its family is known."""
    gaps = [POINTS * a.paired(b) for a, b in pairs]
    n = min(map(len, gaps))
    better = improvement_interval([(a.scores(), b.scores()) for a, b in pairs], LEVEL)
    if min(len(c.runs) for pair in pairs for c in pair) < STUDENT:
        better = Interval(better.value, np.nan, np.nan)
    if n < STUDENT:
        known = [g.mean() for g in gaps if len(g)]
        value = float(np.mean(known)) if known else np.nan
        return Gap(n, Interval(value, np.nan, np.nan), None, None, better)
    return Gap(n, paired_difference(gaps, LEVEL), paired_p(gaps), None, better)


def _family(gaps: dict[tuple[str, str], Gap]) -> dict[tuple[str, str], Gap]:
    known = {at: g.p for at, g in gaps.items() if g.p is not None}
    raised = dict(zip(known, holm(list(known.values())).tolist()))
    return {at: g._replace(holm=raised.get(at)) for at, g in gaps.items()}


def _turned(g: Gap) -> Gap:
    d, i = g.difference, g.improvement
    return g._replace(
        difference=Interval(-d.value, -d.high, -d.low),
        improvement=Interval(1 - i.value, 1 - i.high, 1 - i.low),
    )
