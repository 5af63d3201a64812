"""Theory beside measurement: every prediction that instruments made, and whether it came true."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from graphdyn.instruments import INSTRUMENTS
from graphdyn.report.series import Measured, Series

BAND = 0.05  # where the instrument names none


class Verdict(NamedTuple):
    """One prediction over the second half of a run.

    Attributes:
        name: Of the quantity.
        group: What it is about.
        value: Median of what was measured.
        pred: Median of what was predicted.
        deviation: Median of ``|value - pred| / |pred|``; of the absolute difference where 0 is predicted.
        band: What counts as agreement.
        agrees: Whether the deviation is inside the band.
    """

    name: str
    group: str
    value: float
    pred: float
    deviation: float
    band: float

    @property
    def agrees(self) -> bool:
        """Whether the deviation is inside the band."""
        return self.deviation <= self.band


def verdicts(measured: Measured) -> list[Verdict]:
    """Every prediction with at least one measurement in the second half of the run."""
    every = (s for found in measured.by_name.values() for s in found)
    found = (_verdict(s.later()) for s in every if not np.isnan(s.pred).all())
    return [v for v in found if v is not None]


def _verdict(series: Series) -> Verdict | None:
    known = np.isfinite(series.pred) & np.isfinite(series.value)
    if not known.any():
        return None
    value, pred = series.value[known], series.pred[known]
    scale = np.where(pred == 0, 1.0, np.abs(pred))
    deviation = float(np.median(np.abs(value - pred) / scale))
    kind = INSTRUMENTS.get(series.instrument)
    band = BAND if kind is None else kind.bands.get(series.what, BAND)
    middle = float(np.median(value)), float(np.median(pred))
    return Verdict(series.name, series.group, *middle, deviation, band)


def print_verdicts(measured: Measured) -> None:
    """A table of them, and what instruments could not say."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    rows = verdicts(measured)
    if rows:
        table = Table(
            caption="medians over the second half of the run; in brackets what counts as agreement"
        )
        table.add_column("prediction", overflow="fold")
        for name in ("measured", "predicted", "off by"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
        for v in rows:
            numbers = (f"{v.value:.4g}", f"{v.pred:.4g}", _percent(v.deviation))
            says = "agrees" if v.agrees else "[bold]deviates[/]"
            of = "" if v.group == "all" else f" of {v.group}"
            table.add_row(f"{v.name}{of}", *numbers, f"{says} ({_percent(v.band)})")
        console.print(table)
    for step, name, text in measured.events:
        console.print(f"step {step}: {name}: {text}", soft_wrap=True, highlight=False, markup=False)


def _percent(share: float) -> str:
    return f"{share:.1e}" if 0 < share < 1e-3 else f"{share:.1%}" if share < 10 else "> 1000%"
