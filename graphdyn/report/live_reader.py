"""Reads a run folder again and again while somebody may be writing it; touches nothing."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from graphdyn.files import locked
from graphdyn.report.live_readings import readings
from graphdyn.report.live_run import Curve, RunNow
from graphdyn.report.tail import Tail

PARTS = ("train", "valid", "test")


class RunReader:
    """Reads a run folder again and again; what did not change is not read twice.

    Args:
        folder: Of a run, or of a recorder.
    """

    def __init__(self, folder: Path):
        self._tail = Tail(folder)
        self._last = RunNow(folder)
        self._stamps: dict[str, Any] | None = None

    def read(self) -> RunNow:
        """The folder as it is now."""
        tail = self._tail
        writer = locked(tail.folder)  # first: one that finishes meanwhile leaves a summary
        summary = tail.json("summary.json")
        config = tail.json("config.json") or {}
        state = tail.state() or {}
        # A run drops parts that no checkpoint has counted; a recorder has none that counts.
        parts = state.get("parts", 0) if config else None
        metrics, events = tail.table("metrics", parts), tail.table("events", parts)
        stamps = tail.stamps()
        if stamps != self._stamps:
            closed = not config and "metrics.parquet" in stamps
            seen = RunNow(
                tail.folder, config, summary, state, updated=tail.updated(), closed=closed
            )
            self._last, self._stamps = _measured(seen, metrics, events), stamps
        damaged = tuple(sorted(tail.damaged))
        return replace(self._last, writer=writer, damaged=damaged, now=time.time())


def _measured(seen: RunNow, metrics: Any, events: Any) -> RunNow:
    """With what the tables hold of the last seed."""
    if metrics is None or not metrics.num_rows:
        return replace(seen, events=_events(events, None))
    seed = metrics.column("seed")[-1].as_py()
    own = _where(metrics, seed=seed)
    metric = _scored(own)
    last_lr = _where(own, name="lr")
    return replace(
        seen,
        seed=seed,
        per_epoch=_per_epoch(last_lr),
        metric=metric,
        loss=_curve(_where(own, name="loss", group="step")),
        valid=_curve(_where(own, name=metric, group="valid")),
        readings=readings(own),
        events=_events(events, seed),
    )


def _where(table: Any, **equal: Any) -> Any:
    import pyarrow.compute as pc

    for name, value in equal.items():
        table = table.filter(pc.equal(table.column(name), value))  # pyright: ignore
    return table


def _curve(table: Any) -> Curve:
    return table.column("step").to_numpy(), table.column("value").to_numpy()


def _scored(table: Any) -> str:
    """What is scored on the parts of the split, besides the loss."""
    import pyarrow as pa
    import pyarrow.compute as pc

    of_parts = pc.is_in(table.column("group"), pa.array(PARTS))  # pyright: ignore
    names = table.filter(of_parts).column("name").unique().to_pylist()
    return next((name for name in names if name != "loss"), "score")


def _per_epoch(rates: Any) -> int | None:
    """A learning rate is recorded at the end of each epoch."""
    if not rates.num_rows or not rates.column("epoch")[-1].as_py():
        return None
    return rates.column("step")[-1].as_py() // rates.column("epoch")[-1].as_py()


def _events(table: Any, seed: int | None) -> tuple[tuple[int, str, str], ...]:
    if table is None:
        return ()
    rows = (table if seed is None else _where(table, seed=seed)).to_pylist()
    return tuple((r["step"], r["name"], r["text"]) for r in rows)
