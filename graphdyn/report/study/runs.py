"""The runs of one cell: complete ones with their score, cost and curve, and why the others have none."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from graphdyn.journal import read_table
from graphdyn.report.tables import read_run

AXES = ("steps", "edges", "seconds", "bytes")
COLUMNS = {"steps": "step", "edges": "edges", "seconds": "seconds", "bytes": "bytes"}


class Curve(NamedTuple):
    """The validation metric of one run.

    Attributes:
        at: (n,) by axis; an axis that nobody counted is missing.
        value: (n,), as a fraction of 1; ``-inf`` where the metric was not a number.
    """

    at: dict[str, np.ndarray]
    value: np.ndarray


class Missing(NamedTuple):
    """A run without a result.

    Attributes:
        seed: Of the run.
        kind: failed, diverged, unfinished or not started.
        reason: In a sentence.
    """

    seed: int
    kind: str
    reason: str

    @property
    def lost(self) -> bool:
        """Whether there will be none, however long one waits."""
        return self.kind in ("failed", "diverged")


@dataclass(frozen=True, eq=False)
class Run:
    """A complete run of one seed.

    Attributes:
        seed: Its number.
        folder: Of the run.
        score: Test metric at the epoch that validation picked (validation's, where there is no test part).
        cost: steps, edges, seconds of training, bytes gathered, peak memory in bytes; what was not counted is missing.
        ledger: Seconds by part.
        curve: Of the validation metric.
        summary: The document that completed the run.
    """

    seed: int
    folder: Path
    score: float
    cost: dict[str, float]
    ledger: dict[str, float]
    curve: Curve
    summary: dict[str, Any]


def read_runs(folder: Path, seeds: Sequence[int]) -> tuple[dict[int, Run], list[Missing]]:
    """Complete runs by seed, and the others.

    Args:
        folder: Of the cell.
        seeds: Of the study.
    """
    runs: dict[int, Run] = {}
    missing: list[Missing] = []
    for seed in seeds:
        found = _run(folder, seed)
        if isinstance(found, Run):
            runs[seed] = found
        else:
            missing.append(found)
    return runs, missing


def _run(cell: Path, seed: int) -> Run | Missing:
    folder, failed = cell / f"seed-{seed}", cell / f"seed-{seed}.failed.json"
    if (folder / "summary.json").is_file():
        summary = read_run(folder)["summary"]
        score = _score(summary)
        if not math.isfinite(score):
            return Missing(seed, "diverged", "the run ended, but its score is not a number.")
        return Run(
            seed, folder, score, _cost(summary), summary["seconds"], read_curve(folder), summary
        )
    if failed.is_file():
        told = json.loads(failed.read_text())
        again = f" ({told['attempts']} attempts)" if told.get("attempts", 1) > 1 else ""
        return Missing(
            seed, "failed", f"{told.get('error', 'error')}: {told.get('reason', '')}{again}"
        )
    if folder.is_dir():
        return Missing(seed, "unfinished", "the run has begun and is not at its end.")
    return Missing(seed, "not started", "the run has not begun.")


def _score(summary: dict[str, Any]) -> float:
    part = summary.get("test") or summary.get("validation")
    value = None if part is None else part["values"][0]
    return math.nan if value is None else float(value)


def _cost(summary: dict[str, Any]) -> dict[str, float]:
    """Training seconds are those of the clock: computing, memory and waiting for batches."""
    found = {n: summary[n] for n in ("steps", "edges", "bytes") if summary.get(n) is not None}
    cost = {n: float(v[0] if isinstance(v, list) else v) for n, v in found.items()}
    ledger = summary["seconds"]
    cost["seconds"] = float(sum(ledger.get(n, 0.0) for n in ("compute", "memory", "wait")))
    if summary.get("peak_memory_bytes") is not None:
        cost["memory"] = float(summary["peak_memory_bytes"])
    return cost


def read_curve(folder: Path) -> Curve:
    """The validation metric of a run folder."""
    import pyarrow.compute as pc

    rows = read_table(folder).filter((pc.field("group") == "valid") & (pc.field("name") != "loss"))
    if rows.num_rows:
        rows = rows.filter(pc.field("name") == rows["name"][0].as_py())
    value = rows["value"].to_numpy().astype(float)
    at = {
        axis: rows[column].to_numpy().astype(float)
        for axis, column in COLUMNS.items()
        if column in rows.column_names
    }
    if "bytes" in at and not at["bytes"].any():
        del at["bytes"]  # nobody counted them
    return Curve(at, np.where(np.isfinite(value), value, -np.inf))
