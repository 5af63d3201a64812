"""Charts of the page, as plain data for plotly.js; colours are names that the page gives their values.

A colour is ``@0`` to ``@6`` for a method, ``@text``, ``@muted`` or ``@line``: the page replaces them by those of its
light or dark theme. Numbers are rounded to what can be seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtrit

from graphdyn.report.study.accuracy import LEVEL, POINTS, STUDENT, Gap, Scores
from graphdyn.report.study.data import Cell, Study
from graphdyn.report.study.times import Hits

Figure = dict[str, Any]
DASHES = ("solid", "dash", "dot", "dashdot")
MARKS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "x", "triangle-down")
COLORS = 7
UNITS = {
    "steps": "optimiser steps",
    "edges": "edges touched",
    "seconds": "seconds of training",
    "bytes": "bytes of features gathered",
}


class Chart(NamedTuple):
    """One place on the page, with what can be switched there.

    Attributes:
        id: Of the place.
        title: Above it.
        caption: Below it: how to read it.
        alt: For those who do not see it.
        variants: By the words of the switches, joined by ``|``.
        switches: (name, words) of each switch.
    """

    id: str
    title: str
    caption: str
    alt: str
    variants: dict[str, Figure]
    switches: list[tuple[str, list[str]]]


def forest(study: Study, scores: Scores) -> Chart | None:
    """Differences to the baseline with intervals: the picture of the first lines."""
    variants = {}
    over = {m: g for m in study.methods if (g := scores.gap(m, study.baseline)) is not None}
    several = len(study.datasets) > 1
    if several and over:
        variants["all data sets"] = _forest(study, over)
    for dataset in study.datasets:
        own = {m: g for (d, m), g in scores.against.items() if d == dataset}
        if own:
            variants[dataset] = _forest(study, own)
    if not variants:
        return None
    return Chart(
        "forest",
        f"Difference to the baseline, {study.baseline}",
        f"Mean difference over paired seeds, in points, with its {LEVEL:.0%} interval (Student's). "
        "Right of the line is better than the baseline; an interval that touches the line says little. "
        "Filled: more than noise after Holm's correction.",
        "Dots with intervals, one a method; the numbers are in the table of results.",
        variants,
        [("data", [*variants])],
    )


def _forest(study: Study, gaps: dict[str, Gap]) -> Figure:
    shown = sorted(gaps, key=lambda m: gaps[m].difference.value)
    traces = []
    for method in shown:
        g, color = gaps[method], f"@{study.methods.index(method) % COLORS}"
        d = g.difference
        error = None if np.isnan(d.low) else error_bar([d.high - d.value], [d.value - d.low])
        mark = {
            "color": color if g.clear else "@back",
            "size": 11,
            "line": {"color": color, "width": 2},
        }
        traces.append(
            {
                "x": [_r(d.value)],
                "y": [method],
                "error_x": error and {**error, "color": color},
                "mode": "markers",
                "marker": mark,
                "name": method,
                "showlegend": False,
                "hovertemplate": f"%{{y}}: %{{x:+.2f}} points, {g.n} pairs<extra></extra>",
            }
        )
    line = {"type": "line", "x0": 0, "x1": 0, "yref": "paper", "y0": 0, "y1": 1}
    layout = {
        "xaxis": {"title": {"text": "points"}, "zeroline": False},
        "yaxis": {"type": "category", "automargin": True, "showgrid": False},
        "shapes": [{**line, "line": {"color": "@muted", "width": 1.5, "dash": "dot"}}],
        "height": 110 + 34 * len(shown),
    }
    return {"data": traces, "layout": layout}


def progress(study: Study, axis: str, points: int) -> dict[str, Figure]:
    """Validation metric against one axis of cost, by data set: mean over seeds with Student's band."""
    found = {}
    for dataset in study.datasets:
        traces = []
        for method in study.methods:
            cell = study.cell(dataset, method)
            if cell is not None:
                traces += _band(study, cell, axis, points)
        if traces:
            found[dataset] = {
                "data": traces,
                "layout": {
                    "xaxis": {
                        "title": {"text": UNITS[axis]},
                        "type": "log",
                        "exponentformat": "SI",
                    },
                    "yaxis": {"title": {"text": f"validation {study.metric} (%)"}},
                },
            }
    return found


def _band(study: Study, cell: Cell, axis: str, points: int) -> list[dict[str, Any]]:
    x, mean, reach = averaged(cell, axis, points)
    if not x.size:
        return []
    line = style(study, cell.method)
    traces = [{**line, "x": as_list(x), "y": as_list(mean), "mode": "lines"}]
    if np.isfinite(reach).all():
        traces.insert(
            0,
            {
                "x": as_list(np.concatenate([x, x[::-1]])),
                "y": as_list(np.concatenate([mean + reach, (mean - reach)[::-1]])),
                "fill": "toself",
                "fillcolor": f"{line['line']['color']}/0.15",
                "line": {"width": 0},
                "mode": "lines",
                "hoverinfo": "skip",
                "showlegend": False,
                "legendgroup": cell.method,
            },
        )
    return traces


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
    variants, datasets = {}, [d for d in study.datasets if d in hits.targets]
    for dataset in datasets:
        for axis in study.axes:
            traces = []
            for method in study.methods:
                reach = hits.reaches.get((axis, dataset, method))
                if reach is not None:
                    x = np.concatenate([[0.0], reach.curve.at, [reach.curve.times.time.max()]])
                    last = reach.curve.survival[-1:] if reach.curve.at.size else [1.0]
                    gone = np.concatenate([[1.0], reach.curve.survival, last])
                    line = style(study, method, hv=True)
                    traces.append(
                        {
                            **line,
                            "x": as_list(x),
                            "y": as_list(POINTS * (1 - gone)),
                            "mode": "lines",
                        }
                    )
            layout = {
                "xaxis": {
                    "title": {"text": UNITS[axis]},
                    "rangemode": "tozero",
                    "exponentformat": "SI",
                },
                "yaxis": {
                    "title": {"text": "runs that have reached the target (%)"},
                    "range": [-3, 103],
                },
            }
            variants[f"{dataset}|{axis}"] = {"data": traces, "layout": layout}
    if not variants:
        return None
    return Chart(
        "reached",
        "Runs that have reached the target",
        "Kaplan-Meier estimate: further left and higher is faster. A curve that ends below 100 % has runs "
        "that did not get there within what they were given; they count, as censored.",
        "Step curves, one a method; medians and means are in the table below.",
        variants,
        [("data", datasets), ("axis", study.axes)],
    )


def style(study: Study, method: str, hv: bool = False) -> dict[str, Any]:
    """The same colour and dash for a method wherever it is drawn."""
    place = study.methods.index(method)
    line = {
        "color": f"@{place % COLORS}",
        "width": 2,
        "dash": DASHES[place // COLORS % len(DASHES)],
    }
    shape = {"shape": "hv"} if hv else {}
    return {"name": method, "legendgroup": method, "line": {**line, **shape}}


def error_bar(up: Sequence[float], down: Sequence[float]) -> dict[str, Any]:
    """Ends of an interval as distances from its middle."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [_r(v) for v in up],
        "arrayminus": [_r(v) for v in down],
        "thickness": 2,
        "width": 5,
    }


def as_list(values: np.ndarray) -> list[float | None]:
    """Rounded; what is not finite is left out."""
    return [_r(v) for v in values]


def _r(value: float) -> float | None:
    """Five digits; more cannot be seen and would only make the page heavy."""
    return float(f"{value:.5g}") if np.isfinite(value) else None
