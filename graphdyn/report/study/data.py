"""What a study has left: its cells, the runs that are complete, and why the others are not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphdyn.config import Config
from graphdyn.errors import RecordError
from graphdyn.report.study.runs import AXES, Missing, Run, read_runs

# Labels whose values are names of their own.
NAMES = ("model", "preset", "sampler", "memory", "regularizer", "method")


@dataclass(frozen=True, eq=False)
class Cell:
    """One point of the grid: a method on a data set.

    Attributes:
        name: As the study has it.
        slug: Its folder below ``cells``.
        dataset: Its data set.
        method: Everything else that sets it apart.
        config: Fields that differ from the defaults.
        runs: By seed.
        missing: Seeds without a result.
    """

    name: str
    slug: str
    dataset: str
    method: str
    config: dict[str, Any]
    runs: dict[int, Run]
    missing: list[Missing]

    def scores(self, seeds: Sequence[int] | None = None) -> np.ndarray:
        """(n,) of the seeds, ascending; all of them by default."""
        return np.array(
            [self.runs[s].score for s in (sorted(self.runs) if seeds is None else seeds)]
        )

    def paired(self, other: Cell) -> np.ndarray:
        """(n,) of this one minus another one's, over the seeds that both have."""
        seeds = sorted(self.runs.keys() & other.runs.keys())
        return self.scores(seeds) - other.scores(seeds)

    def mean(self, what: str) -> float | None:
        """Mean cost of a run; ``None`` where a run did not count it."""
        found = [run.cost.get(what) for run in self.runs.values()]
        known = [v for v in found if v is not None]
        return float(np.mean(known)) if known and len(known) == len(found) else None


@dataclass(frozen=True, eq=False)
class Study:
    """A study folder as it is now.

    Attributes:
        folder: Of the study.
        document: ``study.json``.
        cells: By data set and method.
        datasets: In the order of the study.
        methods: In the order of the study.
        baseline: The method that others are compared with.
        chosen: Whether the study names it; else it is the first.
        metric: What is scored, for example accuracy.
        part: test, or validation where a run has no test part.
    """

    folder: Path
    document: dict[str, Any]
    cells: dict[tuple[str, str], Cell]
    datasets: list[str]
    methods: list[str]
    baseline: str
    chosen: bool
    metric: str
    part: str

    def cell(self, dataset: str, method: str) -> Cell | None:
        """One cell; ``None`` where the study has none or it has no run yet."""
        found = self.cells.get((dataset, method))
        return found if found is not None and found.runs else None

    @property
    def whole(self) -> list[str]:
        """Data sets on which every method that has a run at all has one."""
        alive = [m for m in self.methods if any(self.cell(d, m) for d in self.datasets)]
        return [d for d in self.datasets if all(self.cell(d, m) for m in alive)]

    @property
    def runs(self) -> list[Run]:
        """All complete runs."""
        return [run for cell in self.cells.values() for run in cell.runs.values()]

    @property
    def planned(self) -> int:
        """How many runs the study is made of."""
        return len(self.cells) * len(self.document["seeds"])

    @property
    def axes(self) -> list[str]:
        """Axes that every run has counted."""
        return [a for a in AXES if self.runs and all(a in r.curve.at for r in self.runs)]


def read_study(folder: Path) -> Study:
    """A study folder, finished or not.

    Raises:
        RecordError: If the folder holds no study, or ``study.json`` is damaged.
    """
    path = Path(folder) / "study.json"
    try:
        document = json.loads(path.read_text())
        labels = {cell["name"]: cell["labels"] for cell in document["cells"]}
        slugs, seeds = [cell["slug"] for cell in document["cells"]], document["seeds"]
    except FileNotFoundError:
        raise RecordError(
            f"{folder} holds no study; name the folder that `graphdyn study` wrote."
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(
            f"{path} is damaged ({error!r}); run the study again, it goes on."
        ) from None
    names = method_names(labels)
    part = "test"
    cells = {}
    for entry, slug in zip(document["cells"], slugs):
        runs, missing = read_runs(path.parent / "cells" / slug, seeds)
        if any(r.summary.get("test") is None for r in runs.values()):
            part = "validation"
        dataset, method = names[entry["name"]]
        config = entry.get("config", {})
        cells[dataset, method] = Cell(entry["name"], slug, dataset, method, config, runs, missing)
    baseline = document.get("baseline")
    chosen = baseline in names
    return Study(
        path.parent,
        document,
        cells,
        list(dict.fromkeys(d for d, _ in cells)),
        list(dict.fromkeys(m for _, m in cells)),
        names[baseline][1] if chosen else next(iter(names.values()))[1],
        chosen,
        next((r.summary["metric"] for c in cells.values() for r in c.runs.values()), "accuracy"),
        part,
    )


def method_names(labels: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, str]]:
    """Data set and method of each cell: the values of the labels that vary, joined.

    A bare number or switch says nothing alone, so it stands behind the name of its label. A label
    that the name of a bundle decides (its model) adds nothing. Cells that labels do not tell apart keep
    their own names.
    """
    every = list(labels.values())
    keys = list(dict.fromkeys(k for own in every for k in own if k != "dataset"))
    varying = [k for k in keys if len({json.dumps(own.get(k)) for own in every}) > 1]
    varying = [k for k in varying if k == "method" or not _told_by_method(k, every)]
    varying.sort(key=lambda k: k != "method")
    shown = varying or [k for k in ("model", "sampler") if k in keys]
    found = {
        name: (
            str(own.get("dataset", Config.dataset)),
            " · ".join(_word(k, own[k], shown) for k in shown if own.get(k) is not None) or name,
        )
        for name, own in labels.items()
    }
    if len(set(found.values())) < len(found):
        return {name: (dataset, name) for name, (dataset, _) in found.items()}
    return found


def _told_by_method(key: str, every: Sequence[Mapping[str, Any]]) -> bool:
    """Whether cells of one named bundle never differ in a label."""
    pairs = {(json.dumps(own.get("method")), json.dumps(own.get(key))) for own in every}
    return all("method" in own for own in every) and len(pairs) == len({m for m, _ in pairs})


def _word(key: str, value: Any, keys: Sequence[str]) -> str:
    text = str(value)
    speaks = isinstance(value, str) and not text[:1].isdigit() and text not in ("none", "auto")
    return text if speaks and (key in NAMES or len(keys) == 1) else f"{key} {text}"
