"""Charts of scores: differences to the baseline, probabilities of improvement, performance profiles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphdyn.improvement import profile, profile_band
from graphdyn.report.study.accuracy import LEVEL, PERCENT, POINTS, Gap, Scores
from graphdyn.report.study.charts import Chart, Figure, as_list, band, dots, rows_layout, style
from graphdyn.report.study.data import Study
from graphdyn.report.study.tables import ALL

PLACES = 41  # thresholds of a profile


def forest(study: Study, scores: Scores) -> Chart | None:
    """Differences to the baseline with intervals: the picture of the first lines."""
    variants = {}
    over = {m: g for m in study.methods if (g := scores.gap(m, study.baseline)) is not None}
    several = len(study.datasets) > 1
    if several and over:
        variants[ALL] = _forest(study, over)
    for dataset in study.datasets:
        own = {m: g for (d, m), g in scores.against.items() if d == dataset}
        if own:
            variants[dataset] = _forest(study, own)
    if not variants:
        return None
    return Chart(
        "forest",
        f"Difference to the baseline, {study.baseline}",
        f"Mean difference over paired seeds, in points, with its {PERCENT} interval (Student's). "
        "Right of the line is better than the baseline; an interval that touches the line says little. "
        "Filled: more than noise after Holm's correction.",
        "Dots with intervals, one a method; the numbers are in the table of results.",
        variants,
        [("data set", [*variants])],
    )


def _forest(study: Study, gaps: dict[str, Gap]) -> Figure:
    shown = sorted(gaps, key=lambda m: gaps[m].difference.value)
    rows = [(m, gaps[m].difference, gaps[m].clear, _told(gaps[m])) for m in shown]
    return {"data": dots(study, rows), "layout": rows_layout("points", len(shown), 0.0)}


def _told(gap: Gap) -> str:
    return f"%{{x:+.2f}} points, {gap.n} pairs of seeds"


def improvements(study: Study, scores: Scores) -> Chart | None:
    """Probability that a run of a method beats one of the baseline."""
    gaps = {m: g for m in study.methods if (g := scores.gap(m, study.baseline)) is not None}
    if not gaps:
        return None
    shown = sorted(gaps, key=lambda m: gaps[m].improvement.value)
    chances = {m: [POINTS * share for share in gaps[m].improvement] for m in shown}
    rows = [(m, chances[m], _apart(chances[m]), "%{x:.0f} %") for m in shown]
    layout = rows_layout("probability (%)", len(shown), 50.0)
    layout["xaxis"]["range"] = [-2, 102]
    return Chart(
        "improvement",
        f"Probability that a run beats one of {study.baseline}",
        f"Over all pairs of runs, mean over data sets, with {PERCENT} interval (Newcombe's). 50 % is no difference; "
        "filled: the interval leaves it out.",
        "Dots with intervals, one a method.",
        {"": {"data": dots(study, rows), "layout": layout}},
        [],
    )


def _apart(chance: Sequence[float]) -> bool:
    return chance[1] > 50 or chance[2] < 50


def profiles(study: Study, scores: Scores) -> Chart | None:
    """Share of runs above a score, relative to the baseline's mean on the same data set."""
    runs = relative(study, scores)
    if not runs:
        return None
    tau, traces = thresholds(runs, PLACES), []
    for method, own in runs.items():
        low, high = profile_band(own, tau, LEVEL)
        share = POINTS * profile(own, tau)
        traces.append(band(study, method, tau, POINTS * low, POINTS * high))
        traces.append({**style(study, method), "x": as_list(tau), "y": as_list(share)})
    layout = {
        "xaxis": {"title": {"text": f"points above the mean of {study.baseline}"}},
        "yaxis": {"title": {"text": "runs that score more (%)"}, "range": [-3, 103]},
    }
    return Chart(
        "profile",
        "Performance profile",
        f"Share of runs that score more than the place on the axis, mean over data sets; bands: {PERCENT} at each "
        "place (Wilson's). A curve that is higher everywhere is better; steep curves are methods that vary little.",
        "Falling curves, one a method.",
        {"": {"data": traces, "layout": layout}},
        [],
    )


def thresholds(runs: dict[str, list[np.ndarray]], count: int) -> np.ndarray:
    """(count,) from the lowest score to the highest."""
    every = np.concatenate([r for own in runs.values() for r in own])
    return np.linspace(every.min(), every.max(), count)


def relative(study: Study, scores: Scores) -> dict[str, list[np.ndarray]]:
    """Scores in points above the mean of the baseline, by method and data set, where all have runs."""
    if study.baseline not in scores.methods:
        return {}
    found = {}
    for method in scores.methods:
        found[method] = [
            POINTS * study.cells[d, method].scores() - scores.cells[d, study.baseline].mean
            for d in study.whole
        ]
    return found
