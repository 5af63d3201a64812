"""Charts of the page, as plain data for plotly.js; colours are names that the page gives their values.

A colour is ``@0`` to ``@6`` for a method, ``@text``, ``@muted`` or ``@line``: the page replaces them by those of its
light or dark theme. Numbers are rounded to what can be seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from graphdyn.report.study.data import Study

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


def color_of(study: Study, method: str) -> str:
    """The same colour for a method wherever it is drawn."""
    return f"@{study.methods.index(method) % COLORS}"


def style(study: Study, method: str) -> dict[str, Any]:
    """Name, colour and dash of a method's lines."""
    turn = study.methods.index(method) // COLORS
    line = {"color": color_of(study, method), "width": 2, "dash": DASHES[turn % len(DASHES)]}
    return {"name": method, "legendgroup": method, "line": line, "mode": "lines"}


def band(
    study: Study, method: str, x: np.ndarray, low: np.ndarray, high: np.ndarray
) -> dict[str, Any]:
    """The area between two curves, behind a method's line."""
    return {
        "x": as_list(np.concatenate([x, x[::-1]])),
        "y": as_list(np.concatenate([high, low[::-1]])),
        "fill": "toself",
        "fillcolor": f"{color_of(study, method)}/0.14",
        "line": {"width": 0},
        "mode": "lines",
        "hoverinfo": "skip",
        "showlegend": False,
        "legendgroup": method,
    }


def dots(
    study: Study, rows: Sequence[tuple[str, Sequence[float], bool, str]]
) -> list[dict[str, Any]]:
    """One dot with its interval a method, from the bottom to the top.

    Args:
        study: Whose methods they are.
        rows: (method, value with low and high, whether it is filled, what to say of it).
    """
    traces = []
    for method, (value, low, high), filled, told in rows:
        color = color_of(study, method)
        known = np.isfinite(low)
        ends = {
            "array": as_list(np.array([high - value])),
            "arrayminus": as_list(np.array([value - low])),
        }
        error = {"type": "data", "symmetric": False, "thickness": 2, "width": 5, "color": color}
        fill = color if filled else "@back"
        traces.append(
            {
                "x": as_list(np.array([value])),
                "y": [method],
                "error_x": {**error, **ends} if known else {"visible": False},
                "mode": "markers",
                "marker": {"color": fill, "size": 11, "line": {"color": color, "width": 2}},
                "showlegend": False,
                "hovertemplate": f"%{{y}}: {told}<extra></extra>",
            }
        )
    return traces


def rows_layout(unit: str, count: int, nothing: float) -> dict[str, Any]:
    """Of a chart of :func:`dots`, with a line where there is no difference."""
    line = {"type": "line", "x0": nothing, "x1": nothing, "yref": "paper", "y0": 0, "y1": 1}
    return {
        "xaxis": {"title": {"text": unit}, "zeroline": False},
        "yaxis": {"type": "category", "showgrid": False, "range": [-0.6, count - 0.4]},
        "shapes": [{**line, "line": {"color": "@muted", "width": 1.5, "dash": "dot"}}],
        "height": 90 + 40 * count,
    }


def bar(names: Sequence[str], values: Sequence[float], label: str, color: str) -> dict[str, Any]:
    """One part of stacked bars, one bar a name."""
    return {
        "type": "bar",
        "orientation": "h",
        "y": list(names),
        "x": as_list(np.array(values)),
        "name": label,
        "marker": {"color": color, "line": {"color": "@back", "width": 1}},
        "hovertemplate": "%{y}, " + label + ": %{x:.3g}<extra></extra>",
    }


def bars_layout(unit: str, count: int) -> dict[str, Any]:
    """Of a chart of :func:`bar`, the first on top."""
    return {
        "barmode": "relative",
        "xaxis": {"title": {"text": unit}},
        "yaxis": {"type": "category", "autorange": "reversed", "showgrid": False},
        "height": 150 + 36 * count,
    }


def as_list(values: np.ndarray) -> list[float | None]:
    """Five digits, more cannot be seen and would only make the page heavy; what is not finite is left out."""
    return [float(f"{v:.5g}") if np.isfinite(v) else None for v in values]
