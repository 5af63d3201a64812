"""What a run folder says at this moment: how far it is, what was scored, what was measured."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from graphdyn.config import BUDGETS
from graphdyn.report.live_readings import Reading

Array = np.ndarray
Curve = tuple[Array, Array]

SLACK = 30.0  # seconds that a writer may be late before it seems dead
NOTHING: Curve = (np.empty(0), np.empty(0))


@dataclass(frozen=True)
class RunNow:
    """One look at a run folder, or at a recorder's.

    Attributes:
        folder: Of the run.
        config: Its configuration; empty where a recorder writes in somebody else's loop.
        summary: Of a complete run.
        state: Of the last checkpoint: ``results`` of finished seeds, ``seed`` in progress.
        seed: Number of the seed that rows below are of; ``None`` before the first row.
        per_epoch: Steps an epoch; ``None`` before the first epoch is over.
        closed: Whether a recorder's folder is complete.
        metric: What is scored.
        loss: Steps and training losses of the seed.
        valid: Steps and validation scores of the seed.
        readings: The latest of each instrument.
        events: (step, name, text) of the seed.
        updated: When the folder was last written, in seconds since 1970.
        writer: Whether a process has the folder open; ``None``: this machine cannot know.
        damaged: Files that could not be read.
        now: When this was read, in seconds since 1970.
    """

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] | None = None
    state: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    per_epoch: int | None = None
    closed: bool = False
    metric: str = "score"
    loss: Curve = NOTHING
    valid: Curve = NOTHING
    readings: tuple[Reading, ...] = ()
    events: tuple[tuple[int, str, str], ...] = ()
    updated: float | None = None
    writer: bool | None = None
    damaged: tuple[str, ...] = ()
    now: float = 0.0

    @property
    def age(self) -> float | None:
        """Seconds since the folder was last written."""
        return None if self.updated is None else max(0.0, self.now - self.updated)

    @property
    def period(self) -> float:
        """Seconds between checkpoints."""
        return float(self.config.get("checkpoint_seconds", 10.0))

    @property
    def status(self) -> str:
        """``finished``, ``running``, ``stopped`` or ``waiting``: has not begun."""
        if self.summary is not None or self.closed:
            return "finished"
        if self.writer is not None:
            return "running" if self.writer else ("stopped" if self.begun else "waiting")
        if self.age is None:
            return "waiting"
        return "running" if self.age < 2 * self.period + SLACK else "stopped"

    @property
    def begun(self) -> bool:
        """Whether anything was recorded."""
        return bool(self.config or self.state or self.loss[0].size)

    @property
    def results(self) -> list[dict[str, Any]]:
        """Of the seeds that are done."""
        return self.state.get("results", [])

    @property
    def at(self) -> dict[str, Any] | None:
        """How far the seed in progress was at the last checkpoint; ``None`` between two seeds."""
        return self.state["seed"]["at"] if "seed" in self.state else None

    @property
    def done(self) -> float | None:
        """Share of the run that is done; ``None`` where nobody knows how long it will be."""
        if self.summary is not None:
            return 1.0
        if not self.config:
            return None
        now = 0.0 if self.at is None else share(self.config, self.at, self.per_epoch)
        return min(1.0, (len(self.results) + now) / self.config.get("seeds", 1))

    @property
    def spent(self) -> dict[str, float]:
        """The cost ledger so far, in seconds, over all seeds."""
        if self.summary is not None:
            return self.summary["seconds"]
        rows = [result["seconds"] for result in self.results]
        if self.at is not None:
            measured = self.state["seed"].get("instruments") or {}
            rows.append(
                self.at["seconds"] | {"instruments": measured.get("budget", {}).get("spent", 0.0)}
            )
        return {name: sum(row[name] for row in rows) for name in (rows[0] if rows else ())}

    @property
    def counts(self) -> dict[str, int]:
        """Steps, edges and bytes so far, over all seeds."""
        names = ("steps", "edges", "bytes")
        if self.summary is not None:
            return {name: sum(self.summary.get(name, ())) for name in names}
        at = self.at or {}
        now = {"steps": at.get("step", 0), "edges": at.get("edges", 0), "bytes": at.get("bytes", 0)}
        return {name: now[name] + sum(r.get(name, 0) for r in self.results) for name in names}

    @property
    def seed_seconds(self) -> float | None:
        """What a whole seed takes: those that are done, else the one in progress at its pace."""
        done = [result["seconds"]["total"] for result in self.results]
        if done:
            return statistics.fmean(done)
        if self.at is None or not (now := share(self.config, self.at, self.per_epoch)):
            return None
        before = self.at["seconds"]["precompute"]  # once, however long the seed
        return before + (self.at["seconds"]["total"] - before) / now

    @property
    def left(self) -> float | None:
        """Seconds that the rest should take at the pace so far; ``None`` where there is no pace yet."""
        whole = self.seed_seconds
        if whole is None or self.status != "running":
            return None
        rest = (self.config.get("seeds", 1) - len(self.results)) * whole
        if self.at is not None:
            now, spent = share(self.config, self.at, self.per_epoch), self.at["seconds"]
            moving = spent["total"] - spent["precompute"]
            rest += (moving * (1 - now) / now if now else whole) - whole
        return max(0.0, rest - (self.age or 0.0))

    @property
    def best(self) -> dict[str, Any] | None:
        """The evaluation that would be reported of the seed in progress: ``epoch`` and ``metric`` by part."""
        found = self.at["selection"] if self.at is not None else None
        return found if found is not None and found["epoch"] >= 0 else None


def share(config: dict[str, Any], at: dict[str, Any], per_epoch: int | None) -> float:
    """How much of the limit that a seed will reach first is used up.

    Args:
        config: Of the run.
        at: How far the seed is.
        per_epoch: Steps an epoch, where they are known.
    """
    used = {"steps": at["step"], "edges": at["edges"]}
    used |= {"seconds": at.get("trained", 0.0), "bytes": at.get("bytes", 0)}
    limits = {name: config.get(f"max_{name}") for name in BUDGETS}
    shares = [used[name] / limit for name, limit in limits.items() if limit]
    if config.get("epochs"):
        epochs = at["epoch"] if per_epoch is None else at["step"] / per_epoch
        shares.append(epochs / config["epochs"])
    return min(1.0, max(shares, default=0.0))
