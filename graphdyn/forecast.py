"""How long a study will take: from its runs that are done, else from a few steps of each method on each graph."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphdyn.config import Config
from graphdyn.errors import GraphdynError, Interrupted
from graphdyn.grid import Cell
from graphdyn.journal import read_table
from graphdyn.limits import Limits
from graphdyn.work import Trainer, Unit, briefly

_STEPS, _SECONDS = 8, 2.0  # of a calibration, whichever is first
_PATIENCE = 60.0  # seconds for all calibrations; the rest is guessed from them
_METHOD = ("dataset", "model", "preset", "sampler", "memory", "method")


@dataclass(frozen=True)
class Expected:
    """What a run of each cell will take.

    Attributes:
        seconds: By slug; cells that nothing is known of are absent.
        source: Where it is from, in words.
        refused: Why cells could not be tried, by slug.
    """

    seconds: dict[str, float]
    source: str
    refused: dict[str, str]

    def total(self, units: Sequence[Unit]) -> float:
        """Seconds of these runs, one after another; unknown ones count as the mean of the known."""
        mean = statistics.fmean(self.seconds.values()) if self.seconds else 0.0
        return sum(self.seconds.get(unit.slug, mean) for unit in units)


def forecast(cells: Sequence[Cell], units: Sequence[Unit], *, calibrate: bool) -> Expected:
    """What a run of each cell will take.

    Args:
        cells: All of them.
        units: All runs; those that are done tell of their cells.
        calibrate: Whether to train a few steps of those that nothing is known of, here and now.
    """
    found, refused = _of_finished(units), {}
    by_method = {_method(c): found[c.slug] for c in cells if c.slug in found}
    done, tried = len(found), 0
    trainer, end = Trainer(), time.monotonic() + _PATIENCE
    pending = {unit.slug for unit in units if not unit.done and not unit.failure.exists()}
    for cell in cells:
        key = _method(cell)
        if cell.slug not in pending or cell.slug in found:
            continue
        if key not in by_method and calibrate and time.monotonic() < end:
            tried += 1
            try:
                by_method[key] = _calibrate(cell.config, trainer)
            except Interrupted:
                raise
            except GraphdynError as error:
                refused[cell.slug] = str(error)
        if key in by_method:
            found[cell.slug] = by_method[key]
    words = [f"{done} cell(s) with finished runs"] if done else []
    words += [f"{tried} short calibration(s)"] if tried else []
    return Expected(found, " and ".join(words), refused)


def _method(cell: Cell) -> tuple[Any, ...]:
    return tuple(cell.labels.get(name) for name in _METHOD)


def _of_finished(units: Sequence[Unit]) -> dict[str, float]:
    taken: dict[str, list[float]] = {}
    for unit in units:
        if unit.done:
            summary = json.loads((unit.folder / "summary.json").read_text())
            taken.setdefault(unit.slug, []).append(summary["seconds"]["total"])
    return {slug: statistics.fmean(seconds) for slug, seconds in taken.items()}


def _calibrate(config: Config, trainer: Trainer) -> float:
    """Seconds of a run, from a few steps and one evaluation of it."""
    with tempfile.TemporaryDirectory() as folder:
        short = briefly(config, Path(folder) / "run", steps=_STEPS, seconds=_SECONDS)
        summary = trainer.train(short)
        rows = read_table(short.folder).to_pylist()
    return _extrapolate(
        config, summary, [r for r in rows if (r["name"], r["group"]) == ("loss", "step")]
    )


def _extrapolate(config: Config, summary: dict[str, Any], rows: list[dict[str, Any]]) -> float:
    ledger = summary["seconds"]
    each = {name: _slope(rows, name) for name in ("seconds", "edges", "bytes")} | {"steps": 1.0}
    limits = Limits.of(config, summary["batches"][0])
    steps = min(most / max(each[name], 1e-9) for name, most in limits.most.items())
    if config.evaluations is None:
        evaluations = steps / (config.evaluate_every * summary["batches"][0])
    else:
        evaluations = min(config.evaluations, steps)
    share = ledger["instruments"] / max(summary["steps"][0], 1) / max(each["seconds"], 1e-9)
    share = share if config.budget is None else min(share, config.budget)
    training = steps * each["seconds"] * (1 + share)
    return ledger["precompute"] + training + evaluations * ledger["evaluate"]


def _slope(rows: list[dict[str, Any]], name: str) -> float:
    """The mean step's, since steps may alternate; the first one is still warming up."""
    values = [row[name] for row in rows]
    return (values[-1] - values[0]) / (len(values) - 1) if values[1:] else values[0]
