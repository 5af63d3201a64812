"""A run: one configuration over its seeds, recorded, resumable to the bit."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from graphdyn.batch import full_batch
from graphdyn.checkpoint import below, pack_optimizer, prefixed, unpack_optimizer
from graphdyn.config import Config
from graphdyn.data import load, resplit, row_normalize
from graphdyn.errors import GraphdynError, InputError, Interrupted
from graphdyn.evaluation import Scores, evaluate
from graphdyn.graph import Graph
from graphdyn.keys import Key
from graphdyn.machine import (
    Stop,
    device_name,
    peak_memory,
    pick_device,
    settings,
    stoppable,
    versions,
)
from graphdyn.models import APPNP, Stack, build
from graphdyn.optim import advance, build_optimizer, build_schedule
from graphdyn.progress import Progress, progress
from graphdyn.record import Clock, Record
from graphdyn.step import full_batches, train

LEDGER = (
    "precompute",
    "sample",
    "gather",
    "transfer",
    "compute",
    "instruments",
    "evaluate",
    "total",
)


def run(config: Config) -> dict[str, Any]:
    """Train every seed, record it, and return the summary (design section 6: ``summary.json``).

    A finished run returns at once; an unfinished one goes on from its last checkpoint and ends in the same
    numbers as if it had never stopped (to the bit on CPU with the same number of threads).

    Raises:
        InputError: If anything the configuration names cannot be used; nothing is left behind then.
        RecordError: If the run folder cannot be used.
        Interrupted: After Ctrl-C; the folder can be resumed.
    """
    device = pick_device(config.device)
    with settings(config.threads, config.deterministic):
        job = Job(config, device)  # before the folder exists: bad input leaves nothing behind
        record = Record.open(config)
        try:
            done = record.summary()
            if done is not None:
                return done
            with stoppable() as stop:
                return job.train(record, stop)
        finally:
            record.close()


@dataclass
class Selection:
    """The epoch that is reported: the first with the best validation value."""

    epoch: int = -1
    value: float = -math.inf
    metric: dict[str, float] = field(default_factory=dict)
    waited: int = 0

    def offer(self, epoch: int, value: float, scores: Scores) -> bool:
        """Take the epoch if it is strictly better; say whether it was."""
        if not value > self.value:
            self.waited += 1
            return False
        self.epoch, self.value, self.metric, self.waited = epoch, value, dict(scores.metric), 0
        return True


@dataclass
class SeedState:
    """How far a seed has come, in plain values that a checkpoint can hold."""

    seed: int
    epoch: int = 0
    step: int = 0
    edges: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(LEDGER, 0.0))
    selection: Selection = field(default_factory=Selection)

    @property
    def clock(self) -> Clock:
        """When a number measured now is measured."""
        return Clock(self.seed, self.step, self.epoch, self.seconds["compute"], self.edges)


class Job:
    """The graph and the seeds of a configuration."""

    def __init__(self, config: Config, device: torch.device) -> None:
        self.config, self.device = config, device
        start = time.perf_counter()
        self.graph = _load(config, device)
        self.precompute = time.perf_counter() - start
        Seed(self, config.first_seed)  # refuses what cannot be built, before anything is written

    def graph_of(self, seed: int) -> Graph:
        """The graph under the split of a seed."""
        config = self.config
        graph = resplit(self.graph, config.dataset, config.data_root, config.split, seed=seed)
        _check_classes(graph)
        return graph

    def train(self, record: Record, stop: Stop) -> dict[str, Any]:
        """All seeds that are not done yet; returns the summary."""
        config = self.config
        tensors, state = record.load() or ({}, {"results": []})
        results: list[dict[str, Any]] = state["results"]
        total = config.seeds * config.epochs
        with progress(
            f"{config.dataset} {config.model}", total, len(results) * config.epochs
        ) as bar:
            for number in range(len(results), config.seeds):
                seed = Seed(self, config.first_seed + number)
                if "seed" in state:
                    seed.restore(tensors, state.pop("seed"))
                results.append(seed.train(record, results, stop, bar))
                record.save({}, {"results": results})
        summary = self.summarise(results)
        record.finish(summary)
        return summary

    def summarise(self, results: list[dict[str, Any]]) -> dict[str, Any]:
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
            "sampler": "full",
            "metric": self.graph.metric,
            "seeds": [r["seed"] for r in results],
            "test": spread([r["metric"]["test"] for r in results if "test" in r["metric"]]),
            "validation": spread([r["metric"]["valid"] for r in results if "valid" in r["metric"]]),
            "train": spread([r["metric"]["train"] for r in results]),
            "best_epoch": [r["best_epoch"] for r in results],
            "epochs": [r["epochs"] for r in results],
            "parameters": results[0]["parameters"],
            "seconds": ledger,
            "peak_memory_bytes": peak_memory(self.device),
            "device": device_name(self.device),
            "versions": versions(),
        }


class Seed:
    """One seed of a job: its model, optimiser, schedule and how far they have come."""

    def __init__(self, job: Job, seed: int) -> None:
        config = job.config
        self.config = config
        self.graph = job.graph_of(seed)
        self.model = _build(config, self.graph, seed)
        if self.model.num_hops and not self.graph.num_edges:
            raise InputError(
                f"{config.dataset} has no edges, so {config.model} has no messages to pass; use mlp."
            )
        self.model.to(job.device)
        self.optimizer = build_optimizer(
            self.model,
            config.optimizer,
            lr=config.lr,
            weight_decay=config.weight_decay,
            weight_decay_for=config.weight_decay_for,
            **config.optimizer_options,
        )
        self.schedule = build_schedule(self.optimizer, config.schedule, **config.schedule_options)
        start = time.perf_counter()
        self.batch = full_batch(self.graph, self.model.propagation, key=Key(seed))
        self.at = SeedState(seed)
        self.at.seconds["precompute"] = time.perf_counter() - start
        self.best: dict[str, Tensor] = {}

    def train(
        self, record: Record, results: list[dict[str, Any]], stop: Stop, bar: Progress
    ) -> dict[str, Any]:
        """To the last epoch, or until patience runs out; returns the seed's result."""
        config, at = self.config, self.at
        saved = time.monotonic()
        batches = full_batches(self.batch, range(at.epoch, config.epochs))
        steps = train(
            self.model,
            batches,
            self.optimizer,
            precision=config.precision,
            hidden=False,
            first=at.step,
        )
        while not self.finished:
            self.epoch(steps, record)
            bar.update(len(results) * config.epochs + at.epoch, self.note)
            late = time.monotonic() - saved >= config.checkpoint_seconds
            if stop.requested or (late and not self.finished):
                record.save(*self.checkpoint(results))
                saved = time.monotonic()
            if stop.requested:
                raise Interrupted(
                    f"stopped at seed {at.seed}, epoch {at.epoch}; the same command goes on from there."
                )
        record.save_weights(at.seed, self.best)
        return self.result()

    @property
    def finished(self) -> bool:
        """Whether the seed has no epoch left, or no patience."""
        patience = self.config.patience
        out_of_patience = patience is not None and self.at.selection.waited >= patience
        return self.at.epoch >= self.config.epochs or out_of_patience

    @property
    def note(self) -> str:
        """One line for the progress bar."""
        best = self.at.selection
        shown = f"valid {100 * best.metric['valid']:.2f}" if "valid" in best.metric else ""
        return f"seed {self.at.seed}  best epoch {best.epoch}  {shown}"

    def epoch(self, steps: Any, record: Record) -> None:
        """One step on the full graph, then an evaluation when it is due."""
        at = self.at
        step = next(steps)
        at.epoch, at.step = at.epoch + 1, step.index + 1
        at.seconds["compute"] += step.seconds
        at.edges += step.batch.num_edges * self.model.num_hops
        loss = step.loss.item()
        del step
        if not math.isfinite(loss):
            raise GraphdynError(
                f"the training loss became {loss} at seed {at.seed}, epoch {at.epoch}; lower --lr."
            )
        record.add(at.clock, "loss", "step", loss)
        record.add(at.clock, "lr", "all", self.optimizer.param_groups[0]["lr"])
        due = at.epoch % self.config.evaluate_every == 0 or at.epoch == self.config.epochs
        advance(self.schedule, self.evaluate(record) if due else loss)

    def evaluate(self, record: Record) -> float:
        """Score the current weights, keep them if they are the best; returns the validation loss."""
        start = time.perf_counter()
        scores = evaluate(self.model, self.graph, self.batch)
        self.at.seconds["evaluate"] += time.perf_counter() - start
        for part in scores.metric:
            record.add(self.at.clock, self.graph.metric, part, scores.metric[part])
            record.add(self.at.clock, "loss", part, scores.loss[part])
        guide = "valid" if "valid" in scores.metric else "train"
        by_loss = self.config.select == "loss"
        value = -scores.loss[guide] if by_loss else scores.metric[guide]
        if self.at.selection.offer(self.at.epoch, value, scores):
            self.best = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        return scores.loss[guide]

    def result(self) -> dict[str, Any]:
        """What the summary needs of this seed."""
        at = self.at
        assert self.graph.split is not None
        at.seconds["total"] = sum(v for k, v in at.seconds.items() if k != "total")
        return {
            "seed": at.seed,
            "split": self.graph.split.id,
            "metric": at.selection.metric,
            "best_epoch": at.selection.epoch,
            "epochs": at.epoch,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "seconds": at.seconds,
        }

    def checkpoint(self, results: list[dict[str, Any]]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything a later process needs to go on."""
        tensors, plain = pack_optimizer(self.optimizer)
        packed = prefixed("optimizer", tensors)
        packed |= prefixed("model", self.model.state_dict()) | prefixed("best", self.best)
        schedule = self.schedule.state_dict() if self.schedule else None
        seed = {"at": asdict(self.at), "optimizer": plain, "schedule": schedule}
        return packed, {"results": results, "seed": seed}

    def restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        at = dict(state["at"])
        self.at = SeedState(**{**at, "selection": Selection(**at["selection"])})
        self.model.load_state_dict(below("model", tensors))
        self.best = {k: v.to(self.graph.device) for k, v in below("best", tensors).items()}
        unpack_optimizer(self.optimizer, below("optimizer", tensors), state["optimizer"])
        if self.schedule:
            self.schedule.load_state_dict(state["schedule"])


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
    graph = row_normalize(graph) if config.features == "row" else graph
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


_MODEL_FIELDS = (
    "hidden",
    "layers",
    "norm",
    "skip",
    "order",
    "activation",
    "head",
    "dropout",
    "input_dropout",
    "edge_dropout",
)


def _build(config: Config, graph: Graph, seed: int) -> Stack | APPNP:
    options = {name: getattr(config, name) for name in _MODEL_FIELDS}
    options = {name: value for name, value in options.items() if value is not None}
    twice = sorted((options.keys() | {"seed"}) & config.model_options.keys())
    if twice:
        raise InputError(f"model_options names {', '.join(twice)}, which has a flag of its own.")
    options |= config.model_options
    return build(config.model, graph.num_features, graph.num_classes, seed=seed, **options)
