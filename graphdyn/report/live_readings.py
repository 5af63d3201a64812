"""The latest word of each instrument of a seed: one line each, and one for every prediction."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from graphdyn.report.series import Measured, Series, measured_of

# What speaks for an instrument that measures several quantities; else the first that it measured.
SPEAKS = {
    "by_degree": "loss",
    "effective_lr": "effective_lr",
    "embedding_error": "error",
    "fdt": "ratio",
    "grad_noise": "trace",
    "noise_scale": "noise_scale",
    "path_length": "straight",
    "rate_fit": "rate",
    "sampler_mse": "mse",
    "smoothness": "rw",
    "staleness": "error",
}


@dataclass(frozen=True)
class Reading:
    """The latest value of one quantity.

    Attributes:
        name: ``instrument.quantity``.
        group: The layer or group of parameters that speaks: all of them together, else the one that is
            furthest from what theory says, else the last.
        more: How many other groups there are.
        step: When.
        value: The number.
        se: Its standard error; NaN where none is known.
        pred: What theory says; NaN where it says nothing.
        passed: How many of the predictions of this quantity came true so far, over the second half.
        judged: How many there are.
    """

    name: str
    group: str
    more: int
    step: int
    value: float
    se: float
    pred: float
    passed: int = 0
    judged: int = 0


def readings(table: Any) -> tuple[Reading, ...]:
    """The latest of each instrument; those with predictions first.

    Args:
        table: Metrics of one seed.
    """
    import pyarrow.compute as pc

    rows = table.filter(pc.match_substring(table.column("name"), "."))  # pyright: ignore
    if not rows.num_rows:
        return ()
    measured = measured_of(rows.to_pydict(), [])
    judged = _judged(measured)
    found = [_reading(series, judged) for series in _spoken(measured)]
    return tuple(sorted(found, key=lambda r: not r.judged))


def _spoken(measured: Measured) -> list[list[Series]]:
    """The groups of every quantity that is shown."""
    quantities = list(measured.by_name.values())
    first: dict[str, list[Series]] = {}
    for groups in quantities:
        kind, what = groups[0].instrument, groups[0].what
        if kind not in first or SPEAKS.get(kind) == what:
            first[kind] = groups
    speak = {id(groups) for groups in first.values()}
    return [g for g in quantities if id(g) in speak or any(_predicted(s) for s in g)]


def _predicted(series: Series) -> bool:
    return any(math.isfinite(p) for p in series.pred)


def _judged(measured: Measured) -> dict[str, dict[str, tuple[float, bool]]]:
    """Deviation and verdict by quantity and group; torch is loaded only where something was predicted."""
    if not any(_predicted(s) for groups in measured.by_name.values() for s in groups):
        return {}
    from graphdyn.report.predictions import verdicts

    found: dict[str, dict[str, tuple[float, bool]]] = {}
    for v in verdicts(measured):
        found.setdefault(v.name, {})[v.group] = v.deviation, v.agrees
    return found


def _reading(groups: list[Series], judged: dict[str, dict[str, tuple[float, bool]]]) -> Reading:
    own = judged.get(groups[0].name, {})
    of = {series.group: series for series in groups}
    worst = max(own, key=lambda group: own[group][0], default=groups[-1].group)
    series = of["all"] if "all" in of and not own else of[worst]
    return Reading(
        name=series.name,
        group=series.group,
        more=len(groups) - 1,
        step=int(series.step[-1]),
        value=float(series.value[-1]),
        se=float(series.se[-1]),
        pred=float(series.pred[-1]),
        passed=sum(agrees for _, agrees in own.values()),
        judged=len(own),
    )
