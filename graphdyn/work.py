"""What the workers of a study do: one seed of one cell, as an ordinary run folder."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graphdyn.config import Config
from graphdyn.errors import Interrupted, LockedError
from graphdyn.machine import forget_peak_memory, pick_device
from graphdyn.runner import Graphs, run

# A worker whose parent was killed may need this long to leave its run folder (graphdyn.executors.worker).
_PATIENCE = 60.0


@dataclass(frozen=True)
class Unit:
    """One run.

    Attributes:
        cell: Name of its cell.
        slug: Of the cell.
        seed: Its number.
        config: With the seed and the folder.
    """

    cell: str
    slug: str
    seed: int
    config: Config

    @property
    def folder(self) -> Path:
        """Of the run."""
        return self.config.folder

    @property
    def failure(self) -> Path:
        """The file that says that it failed, and why."""
        return self.folder.with_name(f"{self.folder.name}.failed.json")

    @property
    def done(self) -> bool:
        """Whether the run is complete."""
        return (self.folder / "summary.json").is_file()


def unit_of(cell: str, slug: str, config: Config, seed: int, folder: Path) -> Unit:
    """A seed of a cell under the folder of the study."""
    out = folder / "cells" / slug / f"seed-{seed}"
    return Unit(cell, slug, seed, replace(config, seeds=1, first_seed=seed, out=out))


# What decides which code a run goes through.
_WARM = ("dataset", "features", "model", "norm", "skip", "preset", "sampler", "memory",
         "regularizer", "optimizer", "precision", "device", "threads")  # fmt: skip


class Trainer:
    """Trains what it is given; a worker's copy keeps the graph that it read last.

    The first run of a method in a process pays for loading compiled kernels and growing memory, up to
    seconds, which would count against whoever comes first. So every method takes two steps in vain first.
    """

    def __init__(self) -> None:
        self.graphs = Graphs()
        self._warm: set[tuple[Any, ...]] = set()

    def __call__(self, unit: Unit) -> dict[str, Any]:
        """Run, or go on with it; returns the summary."""
        return self.train(unit.config)

    def train(self, config: Config) -> dict[str, Any]:
        """The summary of a configuration; a folder that somebody is about to leave is waited for."""
        # Before the clock of the run starts: reading a graph is no cost of a method.
        device = pick_device(config.device)
        self.graphs.get(config, device)
        self._warm_up(config)
        forget_peak_memory(device)  # of the runs before
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                return run(config, self.graphs)
            except LockedError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def _warm_up(self, config: Config) -> None:
        key = tuple(getattr(config, name) for name in _WARM)
        if key in self._warm or (config.folder / "summary.json").exists():
            return
        self._warm.add(key)
        with tempfile.TemporaryDirectory() as folder:
            short = briefly(config, Path(folder) / "run", steps=2)
            try:
                run(replace(short, instruments=None), self.graphs)
            except Interrupted:
                raise
            except Exception:
                pass  # it goes wrong in the run itself, too, and is told there


def briefly(config: Config, out: Path, *, steps: int, seconds: float | None = None) -> Config:
    """A configuration cut down to a few steps and one evaluation."""
    return replace(
        config,
        epochs=None,
        max_steps=steps,
        max_edges=None,
        max_bytes=None,
        max_seconds=seconds,
        evaluate_every=1,
        evaluations=1,
        patience=None,
        seeds=1,
        out=out,
    )
