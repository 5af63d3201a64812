"""Further charts of the page: how sure, what it cost, and what instruments saw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphdyn.improvement import profile, profile_band
from graphdyn.report.series import Series
from graphdyn.report.study.accuracy import LEVEL, POINTS, Scores
from graphdyn.report.study.charts import COLORS, MARKS, Chart, Figure, as_list, error_bar, style
from graphdyn.report.study.data import Study
from graphdyn.report.study.instruments import Measurements, final, thin

# Parts of the time of a run that come one after the other; sampling and gathering run beside them.
LEDGER = {
    "precompute": "prepare the graph",
    "compute": "forward, backward, update",
    "memory": "memories",
    "wait": "wait for batches",
    "evaluate": "evaluate",
    "instruments": "instruments",
}
ERRORS = {
    "v_sgd": "choice of targets",
    "v_emb": "drawn neighbours",
    "b2_cond": "bias of embeddings",
    "cross": "cross term",
}
BESIDE = 20  # thresholds of a profile on each side


def improvements(study: Study, scores: Scores) -> Chart | None:
    """Probability that a run of a method beats one of the baseline."""
    gaps = {m: g for m in study.methods if (g := scores.gap(m, study.baseline)) is not None}
    if not gaps:
        return None
    traces = []
    for method in sorted(gaps, key=lambda m: gaps[m].improvement.value):
        i, color = gaps[method].improvement, f"@{study.methods.index(method) % COLORS}"
        known = not np.isnan(i.low)
        error = (
            error_bar([POINTS * (i.high - i.value)], [POINTS * (i.value - i.low)])
            if known
            else None
        )
        traces.append(
            {
                "x": as_list(np.array([POINTS * i.value])),
                "y": [method],
                "error_x": error and {**error, "color": color},
                "mode": "markers",
                "marker": {"color": color, "size": 10},
                "showlegend": False,
                "hovertemplate": "%{y}: %{x:.0f} %<extra></extra>",
            }
        )
    half = {"type": "line", "x0": 50, "x1": 50, "yref": "paper", "y0": 0, "y1": 1}
    layout = {
        "xaxis": {"title": {"text": "probability (%)"}, "range": [-2, 102], "zeroline": False},
        "yaxis": {"type": "category", "automargin": True, "showgrid": False},
        "shapes": [{**half, "line": {"color": "@muted", "width": 1.5, "dash": "dot"}}],
        "height": 110 + 34 * len(traces),
    }
    return Chart(
        "improvement",
        f"Probability that a run beats one of {study.baseline}",
        f"Over all pairs of runs, mean over data sets, with {LEVEL:.0%} interval (Newcombe's). 50 % is no difference.",
        "Dots with intervals, one a method.",
        {"": {"data": traces, "layout": layout}},
        [],
    )


def profiles(study: Study, scores: Scores) -> Chart | None:
    """Share of runs above a score, relative to the baseline's mean on the same data set."""
    runs = relative(study, scores)
    if not runs:
        return None
    every = np.concatenate([r for own in runs.values() for r in own])
    tau = np.linspace(every.min(), every.max(), 2 * BESIDE + 1)
    traces: list[dict[str, Any]] = []
    for method, own in runs.items():
        low, high = profile_band(own, tau, LEVEL)
        line = style(study, method)
        band = np.concatenate([high, low[::-1]])
        traces.append(
            {
                "x": as_list(np.concatenate([tau, tau[::-1]])),
                "y": as_list(POINTS * band),
                "fill": "toself",
                "fillcolor": f"{line['line']['color']}/0.10",
                "line": {"width": 0},
                "mode": "lines",
                "hoverinfo": "skip",
                "showlegend": False,
                "legendgroup": method,
            }
        )
        share = POINTS * profile(own, tau)
        traces.append({**line, "x": as_list(tau), "y": as_list(share), "mode": "lines"})
    layout = {
        "xaxis": {"title": {"text": f"points above the mean of {study.baseline}"}},
        "yaxis": {"title": {"text": "runs that score more (%)"}, "range": [-3, 103]},
    }
    return Chart(
        "profile",
        "Performance profile",
        f"Share of runs that score more than the place on the axis, mean over data sets; bands: {LEVEL:.0%} at each "
        "place (Wilson's). A curve that is higher everywhere is better; steep curves are methods that vary little.",
        "Falling curves, one a method.",
        {"": {"data": traces, "layout": layout}},
        [],
    )


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


def ledger(study: Study) -> Chart | None:
    """Where the time of a run went, by data set."""
    variants = {}
    for dataset in study.datasets:
        cells = [c for m in study.methods if (c := study.cell(dataset, m)) is not None]
        if not cells:
            continue
        parts = {p: [_mean_part(c.runs.values(), p) for c in cells] for p in LEDGER}
        totals = [_mean_part(c.runs.values(), "total") for c in cells]
        rest = [max(t - sum(v[i] for v in parts.values()), 0.0) for i, t in enumerate(totals)]
        names = [c.method for c in cells]
        bars = [*((LEDGER[p], v) for p, v in parts.items()), ("everything else", rest)]
        variants[dataset] = {
            "data": [_bar(names, v, label, i) for i, (label, v) in enumerate(bars)],
            "layout": _bars("seconds a run", len(names)),
        }
    if not variants:
        return None
    return Chart(
        "ledger",
        "Where the time went",
        "Mean seconds of a run by part. Batches are sampled and gathered beside training; what training "
        "waited for them is shown.",
        "Stacked bars, one a method; seconds of training are in the table of results.",
        variants,
        [("data", [*variants])],
    )


def _mean_part(runs: Any, part: str) -> float:
    return float(np.mean([run.ledger.get(part, 0.0) for run in runs]))


def gradient_errors(study: Study, measured: Measurements) -> Chart | None:
    """Error of a step's gradient by cause, relative to the squared gradient where that was measured."""
    variants = {}
    for dataset in study.datasets:
        names, rows = [], []
        for method in study.methods:
            own = measured.cells.get((dataset, method))
            if own is not None and own.one("sampler_mse.mse") is not None:
                names.append(method)
                rows.append(
                    {
                        what: _final(own.one(f"sampler_mse.{what}"))
                        for what in (*ERRORS, "embedding")
                    }
                )
        if not rows:
            continue
        split = {what: [_part(row, what) for row in rows] for what in ERRORS}
        split["embedding"] = [
            0.0 if "v_emb" in row and row["v_emb"] is not None else row["embedding"] or 0.0
            for row in rows
        ]
        labels = {**ERRORS, "embedding": "embeddings, not split"}
        used = [w for w in split if any(split[w])]
        variants[dataset] = {
            "data": [_bar(names, split[w], labels[w], i) for i, w in enumerate(used)],
            "layout": _bars("E|g − G|², second half of training", len(names)),
        }
    if not variants:
        return None
    return Chart(
        "error",
        "Error of a sampled gradient, by cause",
        "Mean over seeds and over the second half of training, in units of a squared gradient. The parts sum up to "
        "the error; the cross term and squared biases are estimates that may be negative.",
        "Stacked bars, one a method.",
        variants,
        [("data", [*variants])],
    )


def _final(series: Series | None) -> float | None:
    return None if series is None else final(series)[0]


def _part(row: dict[str, float | None], what: str) -> float:
    return row[what] or 0.0


def lines(
    study: Study, measured: Measurements, name: str, chart: tuple[str, str, str], unit: str
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
                traces += _measured(study, method, thin(chosen))
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
    return Chart(place, title, caption, alt, variants, [("data", [*variants])])


def _measured(study: Study, method: str, series: Series) -> list[dict[str, Any]]:
    line = style(study, method)
    about = "" if series.group == "all" else f" ({series.group})"
    mark = {"symbol": MARKS[study.methods.index(method) % len(MARKS)], "size": 5}
    traces = [
        {
            **line,
            "name": method + about,
            "x": as_list(series.step),
            "y": as_list(series.value),
            "mode": "lines+markers",
            "marker": mark,
        }
    ]
    if np.isfinite(series.pred).any():
        dotted = {"color": line["line"]["color"], "width": 2, "dash": "dot"}
        traces.append(
            {
                "name": f"{method}, predicted",
                "legendgroup": method,
                "x": as_list(series.step),
                "y": as_list(series.pred),
                "line": dotted,
                "mode": "lines",
            }
        )
    return traces


def _bar(names: Sequence[str], values: Sequence[float], label: str, place: int) -> dict[str, Any]:
    return {
        "type": "bar",
        "orientation": "h",
        "y": list(names),
        "x": as_list(np.array(values)),
        "name": label,
        "marker": {"color": f"@{place % COLORS}", "line": {"color": "@back", "width": 1}},
        "hovertemplate": "%{y}, " + label + ": %{x:.3g}<extra></extra>",
    }


def _bars(unit: str, count: int) -> dict[str, Any]:
    return {
        "barmode": "relative",
        "xaxis": {"title": {"text": unit}},
        "yaxis": {
            "type": "category",
            "automargin": True,
            "autorange": "reversed",
            "showgrid": False,
        },
        "height": 150 + 36 * count,
    }
