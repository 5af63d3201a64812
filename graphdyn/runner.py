"""A run: one configuration over its seeds, recorded, resumable to the bit."""

from __future__ import annotations

import dataclasses
import statistics
import time
from contextlib import nullcontext
from typing import Any

import torch

from graphdyn.assembly import describe, names_of
from graphdyn.config import Config
from graphdyn.data import binarize, load, resplit, row_normalize
from graphdyn.errors import InputError, RecordError
from graphdyn.graph import Graph
from graphdyn.journal import Event
from graphdyn.machine import (
    Stop,
    device_name,
    peak_memory,
    pick_device,
    reuse_memory,
    settings,
    stoppable,
    versions,
)
from graphdyn.parallel import World
from graphdyn.progress import Silent, progress
from graphdyn.record import Record
from graphdyn.seed import Seed
from graphdyn.seed_state import LEDGER
from graphdyn.shared_record import open_record

_PER_SEED = (
    "best_epoch",
    "best_step",
    "epochs",
    "batches",
    "steps",
    "edges",
    "nodes",
    "bytes",
)


class Graphs:
    """The graph that was read last, for runs of one process after each other.

    Every run gets a view without what another has derived from it: all pay for their own preparation.
    """

    def __init__(self) -> None:
        self._key: tuple[Any, ...] = ()
        self._graph: Graph | None = None

    def get(self, config: Config, device: torch.device) -> Graph:
        """The graph of a configuration, under some split of its."""
        key = (config.dataset, config.data_root, config.split, config.features, device)
        if self._graph is None or self._key != key:
            self._graph = None  # two do not always fit
            self._graph, self._key = _load(config, device), key
        return dataclasses.replace(self._graph)


def run(config: Config, graphs: Graphs | None = None) -> dict[str, Any]:
    """Train every seed, record it, and return the summary (design section 6: ``summary.json``).

    A finished run returns at once; an unfinished one goes on from its last checkpoint and ends in the same
    numbers as if it had never stopped (to the bit on CPU with the same number of threads).

    Under ``torchrun`` all its processes train one model, see :mod:`graphdyn.parallel`; ``batch_size`` is that
    of each of them.

    Args:
        config: What to run.
        graphs: Where to take the graph from, if another run of this process may have read it.

    Raises:
        InputError: If anything the configuration names cannot be used; nothing is left behind then.
        RecordError: If the run folder cannot be used.
        Interrupted: After Ctrl-C; the folder can be resumed.
        RankLost: If another process went away; the folder can be resumed.
    """
    world = World.here()
    with world.joined():
        return _run(config, world, graphs or Graphs())


def _run(config: Config, world: World, graphs: Graphs) -> dict[str, Any]:
    with world.agreed():
        device = pick_device(config.device, world)
        if device.type == "cuda" and not world.alone:
            torch.cuda.set_device(device)
    if names_of(config).sampler != "full":
        reuse_memory()  # a full batch is allocated once, and would only raise its peak
    with settings(config.threads, config.deterministic):
        with world.agreed():
            job = Job(
                config, device, world, graphs
            )  # before the folder exists: bad input leaves nothing
        record = open_record(config, world)
        try:
            done = record.summary()
            if done is not None:
                check_ranks(done, world, record)
                return done
            with stoppable() as stop:
                return job.train(record, stop)
        finally:
            record.close()


class Job:
    """The graph and the seeds of a configuration."""

    def __init__(
        self,
        config: Config,
        device: torch.device,
        world: World = World(),
        graphs: Graphs | None = None,
    ) -> None:
        self.config, self.device, self.world = config, device, world
        start = time.perf_counter()
        self.graph = (graphs or Graphs()).get(config, device)
        self.precompute = time.perf_counter() - start
        # Refuses what cannot be built, before anything is written.
        self._first: Seed | None = self.seed(0)

    def graph_of(self, seed: int) -> Graph:
        """The graph under the split of a seed."""
        config = self.config
        graph = resplit(self.graph, config.dataset, config.data_root, config.split, seed=seed)
        _check_classes(graph)
        return graph

    def seed(self, index: int) -> Seed:
        """The seed with this index, before its first step."""
        number = self.config.first_seed + index
        return Seed(self.config, self.graph_of(number), number, self.world)

    def train(self, record: Record, stop: Stop) -> dict[str, Any]:
        """All seeds that are not done yet; returns the summary."""
        config, ranks = self.config, {"ranks": self.world.size}
        tensors, state = record.load() or ({}, {"results": [], **ranks})
        check_ranks(state, self.world, record)
        results: list[dict[str, Any]] = state["results"]
        first, self._first = self._first, None
        assert first is not None
        method, units = describe(config, first.method), first.limits.total
        title = " ".join((config.dataset, config.model, config.preset or method["sampler"]))
        shown = progress(title, config.seeds * units, len(results) * units)
        with shown if self.world.leads else nullcontext(Silent()) as bar:
            for index in range(len(results), config.seeds):
                seed, first = first if index == 0 and first else self.seed(index), None
                if "seed" in state:
                    seed.restore(tensors, state.pop("seed"))
                    record.add(
                        seed.at.clock, Event("resumed", "the run had stopped after this step.")
                    )
                results.append(seed.train(record, results, stop, bar))
                record.save({}, {"results": results, **ranks})
        summary = self.summarise(results, method)
        record.finish(summary)
        return summary

    def summarise(self, results: list[dict[str, Any]], method: dict[str, Any]) -> dict[str, Any]:
        """The document that completes a run."""
        config = self.config
        assert self.graph.split is not None
        ledger: dict[str, float] = {n: sum(r["seconds"][n] for r in results) for n in LEDGER}
        ledger["precompute"] += self.precompute
        ledger["total"] += self.precompute
        return {
            "id": config.id,
            "dataset": config.dataset,
            "split": sorted({r["split"] for r in results}),
            "model": config.model,
            **method,
            "ranks": self.world.size,
            "metric": self.graph.metric,
            "seeds": [r["seed"] for r in results],
            "test": spread([r["metric"]["test"] for r in results if "test" in r["metric"]]),
            "validation": spread([r["metric"]["valid"] for r in results if "valid" in r["metric"]]),
            "train": spread([r["metric"]["train"] for r in results]),
            **{name: [r[name] for r in results] for name in _PER_SEED},
            "parameters": results[0]["parameters"],
            "seconds": ledger,
            **({"instruments": [r["instruments"] for r in results]} if config.instruments else {}),
            "peak_memory_bytes": peak_memory(self.device),
            "device": device_name(self.device),
            "versions": versions(),
        }


def check_ranks(document: dict[str, Any], world: World, record: Record) -> None:
    """Raise :class:`RecordError` if a run was begun by another number of ranks: its steps are others.

    Args:
        document: A checkpoint's state, or a summary.
        world: Who is here now.
        record: Where the document lies.
    """
    ranks = document.get("ranks", 1)
    if ranks != world.size:
        raise world.alike(
            RecordError(
                f"{record.folder} holds a run of {ranks} rank(s), and here are {world.size}; start as many "
                "as then, or choose another --out."
            )
        )


def spread(values: list[float]) -> dict[str, Any] | None:
    """Mean, sample standard deviation (``None`` for one value), count and every value."""
    if not values:
        return None
    std = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "std": std, "n": len(values), "values": values}


def _load(config: Config, device: torch.device) -> Graph:
    graph = load(config.dataset, config.data_root, config.split, seed=config.first_seed)
    if graph.split is None:
        raise InputError(f"{config.dataset} has no split of its own; name one with --split.")
    if graph.x is None or graph.y is None:
        lacks = "features" if graph.x is None else "labels"
        raise InputError(f"{config.dataset} has no {lacks}, so no model can be trained on it.")
    graph = binarize(graph) if config.features == "binary" else graph
    graph = graph if config.features == "raw" else row_normalize(graph)
    return graph.to(device)


def _check_classes(graph: Graph) -> None:
    if graph.task != "multiclass":
        return
    assert graph.split is not None
    assert graph.y is not None
    counts = torch.bincount(graph.y[graph.split.train], minlength=graph.num_classes)
    missing = torch.nonzero(counts == 0).flatten().tolist()
    if missing:
        raise InputError(
            f"split {graph.split.id} of {graph.name} has no training node of class(es) "
            f"{', '.join(map(str, missing))}; choose another split."
        )
