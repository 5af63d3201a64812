"""Charts of cost: scores against it, times to the target, and where the time of a run went."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy.special import stdtrit

from graphdyn.report.study.accuracy import LEVEL, PERCENT, POINTS, STUDENT
from graphdyn.report.study.charts import (
    UNITS,
    Chart,
    Figure,
    as_list,
    band,
    bar,
    bars_layout,
    style,
)
from graphdyn.report.study.data import Cell, Study
from graphdyn.report.study.runs import Run
from graphdyn.report.study.times import Hits, Reach

# Parts of the time of a run that come one after the other; sampling and gathering run beside them.
LEDGER = {
    "precompute": "prepare the graph",
    "compute": "forward, backward, update",
    "memory": "memories",
    "wait": "wait for batches",
    "evaluate": "evaluate",
    "instruments": "instruments",
}


def progress(study: Study, axis: str, points: int) -> Chart | None:
    """Validation metric against one axis of cost, by data set: mean over seeds with Student's band."""
    variants: dict[str, Figure] = {}
    for dataset in study.datasets:
        cells = [c for m in study.methods if (c := study.cell(dataset, m)) is not None]
        traces = [trace for cell in cells for trace in _mean_curve(study, cell, axis, points)]
        if traces:
            place = {
                "title": {"text": UNITS[axis]},
                "type": "log",
                "dtick": "D2",
                "exponentformat": "SI",
            }
            value = {"title": {"text": f"validation {study.metric} (%)"}}
            variants[dataset] = {"data": traces, "layout": {"xaxis": place, "yaxis": value}}
    if not variants:
        return None
    return Chart(
        f"progress-{axis}",
        f"Validation {study.metric} against {UNITS[axis]}",
        f"Mean over seeds; band: {PERCENT} interval of the mean (Student's) at each place. Further left is cheaper. "
        "A curve ends where the first of its seeds ends; failed runs are left out.",
        f"Rising curves, one a method, over {UNITS[axis]}.",
        variants,
        [("data set", [*variants])],
    )


def _mean_curve(study: Study, cell: Cell, axis: str, points: int) -> list[dict[str, Any]]:
    x, mean, reach = averaged(cell, axis, points)
    if not x.size:
        return []
    line = {**style(study, cell.method), "x": as_list(x), "y": as_list(mean)}
    if not np.isfinite(reach).all():
        return [line]
    return [band(study, cell.method, x, mean - reach, mean + reach), line]


def averaged(cell: Cell, axis: str, points: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n,) places, means over seeds in per cent, and half widths of Student's intervals.

    A seed has its last evaluation until the next one; means begin where all seeds have one and end where the
    first seed ends.
    """
    nothing = np.empty(0)
    curves = [
        r.curve
        for r in cell.runs.values()
        if r.curve.value.size and np.isfinite(r.curve.value).all()
    ]
    if not curves:
        return nothing, nothing, nothing
    low, high = (f(c.at[axis][i] for c in curves) for f, i in ((max, 0), (min, -1)))
    if not 0 < low <= high:
        return nothing, nothing, nothing
    count = max(2, min(points, max(c.value.size for c in curves)))
    x = np.unique(np.geomspace(low, high, count))
    places = [np.searchsorted(c.at[axis], x * (1 + 1e-12), side="right") - 1 for c in curves]
    rows = POINTS * np.stack([c.value[p] for c, p in zip(curves, places)])
    n = len(curves)
    if n < STUDENT:
        return x, rows.mean(0), np.full(x.size, np.nan)
    reach = float(stdtrit(n - 1, 0.5 + LEVEL / 2)) * rows.std(0, ddof=1) / np.sqrt(n)
    return x, rows.mean(0), reach


def reached(study: Study, hits: Hits) -> Chart | None:
    """Share of runs that have reached the target: Kaplan-Meier, by data set and axis."""
    datasets = [d for d in study.datasets if d in hits.targets]
    variants = {
        f"{d}|{axis}": _reached(study, hits, axis, d) for d in datasets for axis in study.axes
    }
    if not variants:
        return None
    return Chart(
        "reached",
        "Runs that have reached the target",
        "Kaplan-Meier estimate: further left and higher is faster. A curve that ends below 100 % has runs "
        "that did not get there within what they were given; they count, as censored.",
        "Step curves, one a method; medians and means are in the table below.",
        variants,
        [("data set", datasets), ("axis", study.axes)],
    )


def _reached(study: Study, hits: Hits, axis: str, dataset: str) -> Figure:
    traces, last = [], 0.0
    for method in study.methods:
        found = hits.reaches.get((axis, dataset, method))
        if found is not None:
            x, share = steps(found)
            line, last = style(study, method), max(last, float(x[-1]))
            line["line"]["shape"] = "hv"
            traces.append({**line, "x": as_list(x), "y": as_list(share)})
    place = {"title": {"text": UNITS[axis]}, "range": [0, 1.03 * last], "exponentformat": "SI"}
    share = {"title": {"text": "runs that have reached the target (%)"}, "range": [-3, 103]}
    return {"data": traces, "layout": {"xaxis": place, "yaxis": share}}


def steps(reach: Reach) -> tuple[np.ndarray, np.ndarray]:
    """Places and shares, in per cent, of those that got there; from 0 to the end of the last run."""
    curve = reach.curve
    gone = np.concatenate([[1.0], curve.survival])
    x = np.concatenate([[0.0], curve.at, [curve.times.time.max()]])
    return x, POINTS * (1 - np.append(gone, gone[-1]))


def ledger(study: Study) -> Chart | None:
    """Where the time of a run went, by data set."""
    variants = {d: found for d in study.datasets if (found := _ledger(study, d)) is not None}
    if not variants:
        return None
    return Chart(
        "ledger",
        "Seconds of a run, by part",
        "Means over seeds. Batches are sampled and gathered beside training; what training waited for "
        "them is shown. Training, which the other figures count, is update, memories and waiting.",
        "Stacked bars, one a method; seconds of training are in the table of results.",
        variants,
        [("data set", [*variants])],
    )


def _ledger(study: Study, dataset: str) -> Figure | None:
    cells = [c for m in study.methods if (c := study.cell(dataset, m)) is not None]
    if not cells:
        return None
    names = [c.method for c in cells]
    parts = {p: np.array([_mean_part(c.runs.values(), p) for c in cells]) for p in LEDGER}
    total = np.array([_mean_part(c.runs.values(), "total") for c in cells])
    rest = total - np.sum([*parts.values()], axis=0)
    bars = [bar(names, list(v), LEDGER[p], f"@{i}") for i, (p, v) in enumerate(parts.items())]
    bars.append(bar(names, list(np.maximum(rest, 0.0)), "everything else", "@muted/0.5"))
    return {"data": bars, "layout": bars_layout("seconds a run", len(names))}


def _mean_part(runs: Iterable[Run], part: str) -> float:
    return float(np.mean([run.ledger.get(part, 0.0) for run in runs]))
