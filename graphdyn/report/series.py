"""What a run has measured, as series over steps: mean over seeds where they measured at the same steps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from graphdyn.journal import read_table

Array = np.ndarray


@dataclass(frozen=True)
class Series:
    """One quantity of one group.

    Attributes:
        name: For example ``"fdt.ratio"``.
        group: What it is about.
        step: (n,) ascending.
        value: (n,).
        se: (n,) standard errors; NaN where there are none.
        pred: (n,) predictions; NaN where there are none.
    """

    name: str
    group: str
    step: Array
    value: Array
    se: Array
    pred: Array

    @property
    def instrument(self) -> str:
        """Who measured it."""
        return self.name.split(".")[0]

    @property
    def what(self) -> str:
        """Its name at the instrument."""
        return self.name.split(".", 1)[-1]

    def later(self) -> Series:
        """The second half, counted in steps."""
        kept = self.step >= (self.step[0] + self.step[-1]) / 2
        columns = (column[kept] for column in (self.step, self.value, self.se, self.pred))
        return Series(self.name, self.group, *columns)


@dataclass(frozen=True)
class Measured:
    """All series of a run.

    Attributes:
        by_name: Series by name, in the order in which groups first came.
        seeds: Numbers of the seeds.
        events: (step, name, text), once each.
    """

    by_name: dict[str, list[Series]]
    seeds: list[int]
    events: list[tuple[int, str, str]]

    def of(self, name: str) -> list[Series]:
        """Every group of a quantity; none where it was not measured."""
        return self.by_name.get(name, [])

    def one(self, name: str, group: str = "all") -> Series | None:
        """One group of a quantity."""
        return next((s for s in self.of(name) if s.group == group), None)


def is_record(folder: Path) -> bool:
    """Whether a recorder has written here, and no run."""
    tables = (folder / "metrics.parquet").is_file() or (folder / "metrics").is_dir()
    return tables and not (folder / "config.json").is_file()


def read_measured(folder: Path) -> Measured:
    """The series of a run folder, or of a recorder's.

    Raises:
        RecordError: If the folder holds no metrics.
    """
    return measured_of(read_table(folder).to_pydict(), read_table(folder, "events").to_pylist())


def measured_of(columns: dict[str, list], events: list[dict]) -> Measured:
    """The series of rows of a journal.

    Args:
        columns: Of metrics.
        events: Rows.
    """
    rows: dict[tuple[str, str], list[int]] = {}
    for i, key in enumerate(zip(columns["name"], columns["group"])):
        rows.setdefault(key, []).append(i)
    numbers = {n: _floats(columns[n]) for n in ("step", "value", "se", "pred")}
    by_name: dict[str, list[Series]] = {}
    for (name, group), places in rows.items():
        by_name.setdefault(name, []).append(_series(name, group, numbers, np.array(places)))
    told = dict.fromkeys((e["step"], e["name"], e["text"]) for e in events)
    return Measured(by_name, sorted(set(columns["seed"])), [*told])


def _series(name: str, group: str, numbers: dict[str, Array], places: Array) -> Series:
    step = numbers["step"][places]
    steps, place = np.unique(step, return_inverse=True)
    return Series(
        name, group, steps, *(_means(numbers[n][places], place) for n in ("value", "se", "pred"))
    )


def _means(values: Array, place: Array) -> Array:
    """Of those that are numbers; NaN where none is."""
    known = ~np.isnan(values)
    total = np.bincount(place, np.where(known, values, 0.0))
    count = np.bincount(place, known)
    return np.divide(total, count, out=np.full(total.size, np.nan), where=count > 0)


def _floats(values: list) -> Array:
    return np.array([np.nan if v is None else v for v in values], dtype=float)
