"""What instruments measured in the cells of a study: series over seeds, and which predictions came true."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from graphdyn.journal import read_table
from graphdyn.report.predictions import Verdict, verdicts
from graphdyn.report.series import Measured, Series, measured_of
from graphdyn.report.study.data import Cell, Study

KEPT = ("seed", "step", "name", "group", "value", "se", "pred")


class Prediction(NamedTuple):
    """One prediction for one method, over data sets, groups and seeds.

    Attributes:
        name: Of the quantity.
        method: Whose runs.
        agree: In how many cases measurement and theory agree.
        of: Cases: data sets times seeds times groups.
        deviation: Median over cases of the relative deviation.
        band: What counts as agreement.
    """

    name: str
    method: str
    agree: int
    of: int
    deviation: float
    band: float

    @property
    def passed(self) -> bool:
        """Whether measurement and theory agree in every case."""
        return self.agree == self.of


@dataclass(frozen=True)
class Measurements:
    """What instruments measured.

    Attributes:
        cells: Series of each cell, all seeds together.
        predictions: Those of a quantity together.
        refused: Instrument to a reason why it did not measure.
    """

    cells: dict[tuple[str, str], Measured]
    predictions: list[Prediction]
    refused: dict[str, str]

    def series(self, name: str) -> dict[tuple[str, str], list[Series]]:
        """A quantity by cell, where it was measured."""
        found = {at: measured.of(name) for at, measured in self.cells.items()}
        return {at: series for at, series in found.items() if series}


def read_instruments(study: Study) -> Measurements:
    """Everything that instruments of complete runs have written."""
    import pyarrow as pa

    cells: dict[tuple[str, str], Measured] = {}
    found: dict[tuple[str, str], list[Verdict]] = {}
    refused: dict[str, str] = {}
    for at, cell in study.cells.items():
        tables = {seed: _table(run.folder) for seed, run in cell.runs.items()}
        if not any(t.num_rows for t in tables.values()):
            continue
        cells[at] = measured_of(pa.concat_tables(tables.values()).to_pydict(), [])
        for verdict in _verdicts(tables):
            found.setdefault((verdict.name, cell.method), []).append(verdict)
        refused |= _refused(cell)
    names = list(dict.fromkeys(name for name, _ in found))
    ordered = sorted(found, key=lambda at: (names.index(at[0]), study.methods.index(at[1])))
    return Measurements(cells, [_prediction(*at, found[at]) for at in ordered], refused)


def final(series: Series) -> tuple[float, float]:
    """Mean over the second half of training with the standard error of a mean of independent readings."""
    late = series.later()
    known = np.isfinite(late.value)
    if not known.any():
        return float("nan"), float("nan")
    se = np.nan_to_num(late.se[known])
    return float(late.value[known].mean()), float(np.sqrt((se**2).sum()) / known.sum())


def thin(series: Series, points: int) -> Series:
    """Means over at most so many stretches of steps, since seeds may have measured at different ones."""
    if series.step.size <= points:
        return series
    edges = np.linspace(series.step[0], series.step[-1], points + 1)
    place = np.clip(np.searchsorted(edges, series.step, side="right") - 1, 0, points - 1)
    columns = [
        _means(c, place, points) for c in (series.step, series.value, series.se, series.pred)
    ]
    kept = np.isfinite(columns[0])
    return Series(series.name, series.group, *(c[kept] for c in columns))


def _means(column: np.ndarray, place: np.ndarray, count: int) -> np.ndarray:
    known = np.isfinite(column)
    n = np.bincount(place[known], minlength=count)
    total = np.bincount(place[known], column[known], minlength=count)
    return np.divide(total, n, out=np.full(count, np.nan), where=n > 0)


def _table(folder: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    table = read_table(folder).select(list(KEPT))
    names = [name for name in table["name"].unique().to_pylist() if "." in name]
    return table.filter(pc.field("name").isin(pa.array(names, pa.string())))


def _verdicts(tables: Mapping[int, Any]) -> Iterator[Verdict]:
    """Of every seed by itself: a mean over seeds would hide those that disagree."""
    import pyarrow.compute as pc

    for table in tables.values():
        rows = table.filter(pc.field("pred").is_valid()).to_pydict()
        yield from verdicts(measured_of(rows, []))


def _prediction(name: str, method: str, found: list[Verdict]) -> Prediction:
    agree, middle = sum(v.agrees for v in found), float(np.median([v.deviation for v in found]))
    return Prediction(name, method, agree, len(found), middle, found[0].band)


def _refused(cell: Cell) -> dict[str, str]:
    """Reasons of the first seed stand for all."""
    first = next(iter(cell.runs.values()))
    rows = read_table(first.folder, "events").to_pylist()
    told = [(r["name"], r["text"]) for r in rows if r["name"].endswith(" invalid")]
    return {name.removesuffix(" invalid"): text for name, text in told}
