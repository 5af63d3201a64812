"""Charts of what instruments saw: the error of a gradient by cause, and series against steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphdyn.report.series import Measured, Series
from graphdyn.report.study.charts import (
    MARKS,
    Chart,
    Figure,
    as_list,
    bar,
    bars_layout,
    color_of,
    style,
)
from graphdyn.report.study.data import Study
from graphdyn.report.study.instruments import Measurements, final, thin

ERRORS = {
    "v_sgd": "choice of targets",
    "v_emb": "drawn neighbours",
    "b2_cond": "bias of embeddings",
    "cross": "cross term",
    "embedding": "embeddings, not split",
}


def gradient_errors(study: Study, measured: Measurements) -> Chart | None:
    """Error of a step's gradient by cause, beside the squared gradient itself."""
    variants = {
        d: found for d in study.datasets if (found := _errors(study, measured, d)) is not None
    }
    if not variants:
        return None
    return Chart(
        "error",
        "Error of a sampled gradient, by cause",
        "Mean over seeds and over the second half of training, in units of a squared gradient; the diamond is the "
        "squared gradient itself, where measured: bars beyond it are steps with more noise than signal. Parts sum up "
        "to the error; squared biases and the cross term are unbiased estimates and may be negative.",
        "Stacked bars, one a method.",
        variants,
        [("data set", [*variants])],
    )


def _errors(study: Study, measured: Measurements, dataset: str) -> Figure | None:
    cells = {m: measured.cells.get((dataset, m)) for m in study.methods}
    known = {
        m: c for m, c in cells.items() if c is not None and c.one("sampler_mse.mse") is not None
    }
    if not known:
        return None
    names, rows = [*known], [_parts(c) for c in known.values()]
    used = [what for what in ERRORS if any(row[what] for row in rows)]
    bars = [bar(names, [row[w] for row in rows], ERRORS[w], f"@{[*ERRORS].index(w)}") for w in used]
    squares = [_final(c, "square") for c in known.values()]
    mark = {
        "symbol": "diamond-tall",
        "size": 13,
        "color": "@back",
        "line": {"color": "@text", "width": 2},
    }
    diamonds = {
        "x": as_list(np.array([np.nan if s is None else s for s in squares])),
        "y": names,
        "mode": "markers",
        "marker": mark,
        "name": "squared gradient",
        "hovertemplate": "%{y}, squared gradient: %{x:.3g}<extra></extra>",
    }
    layout = bars_layout("E|g − G|², second half of training", len(names))
    shown = [diamonds] if any(s is not None for s in squares) else []
    return {"data": bars + shown, "layout": layout}


def _parts(cell: Measured) -> dict[str, float]:
    """Parts that sum up to the error; those of embeddings together where they cannot be told apart."""
    found = {what: _final(cell, what) for what in ERRORS}
    if found["v_emb"] is not None:
        found["embedding"] = None
    return {what: value or 0.0 for what, value in found.items()}


def _final(cell: Measured, what: str) -> float | None:
    series = cell.one(f"sampler_mse.{what}")
    value = np.nan if series is None else final(series)[0]
    return float(value) if np.isfinite(value) else None


def lines(
    study: Study,
    measured: Measurements,
    name: str,
    chart: tuple[str, str, str],
    unit: str,
    points: int,
) -> Chart | None:
    """One quantity against steps, by data set: solid measured, dotted predicted; one line a method.

    Where a quantity has several groups, that of all, or else the first, is drawn; it is named in the legend.
    """
    variants: dict[str, Figure] = {}
    for dataset in study.datasets:
        traces = []
        for method in study.methods:
            own = measured.cells.get((dataset, method))
            found = own.of(name) if own is not None else []
            if found:
                chosen = next((s for s in found if s.group == "all"), found[0])
                traces += _measured(study, method, thin(chosen, points))
        if traces:
            layout = {
                "xaxis": {"title": {"text": "optimiser steps"}},
                "yaxis": {"title": {"text": unit}, "type": "log", "exponentformat": "power"},
            }
            variants[dataset] = {"data": traces, "layout": layout}
    place, title, caption = chart
    if not variants:
        return None
    alt = "Curves against steps, one a method."
    return Chart(place, title, caption, alt, variants, [("data set", [*variants])])


def _measured(study: Study, method: str, series: Series) -> list[dict[str, Any]]:
    line, x = style(study, method), as_list(series.step)
    about = "" if series.group == "all" else f" ({series.group})"
    mark = {"symbol": MARKS[study.methods.index(method) % len(MARKS)], "size": 5}
    solid = {**line, "name": method + about, "mode": "lines+markers", "marker": mark}
    traces = [{**solid, "x": x, "y": as_list(series.value)}]
    if np.isfinite(series.pred).any():
        dotted = {"color": color_of(study, method), "width": 2, "dash": "dot"}
        told = {**line, "name": f"{method}, predicted", "line": dotted}
        traces.append({**told, "x": x, "y": as_list(series.pred)})
    return traces
