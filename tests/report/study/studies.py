"""Study folders whose truth is known, written with the real journal and record; nothing is trained."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from graphdyn.config import Config
from graphdyn.journal import Clock, Event, Metric
from graphdyn.keys import Key
from graphdyn.record import Record
from graphdyn.report.study.data import Cell, Study
from graphdyn.report.study.runs import Curve, Missing, Run

# Accuracy in the limit, steps of the time constant, edges a step, seconds a step, bytes a step, and parts of
# the error of a gradient.
METHODS = {
    "full": (0.000, 60.0, 10000, 0.020, 4_000_000, {"v_sgd": 0.0, "v_emb": 0.0, "b2_cond": 0.0}),
    "neighbor": (
        0.004,
        30.0,
        3000,
        0.010,
        1_000_000,
        {"v_sgd": 0.4, "v_emb": 0.3, "b2_cond": 0.02},
    ),
    "labor": (0.004, 30.0, 1800, 0.008, 600_000, {"v_sgd": 0.4, "v_emb": 0.2, "b2_cond": 0.02}),
    "gas": (0.020, 20.0, 2500, 0.012, 900_000, {"v_sgd": 0.3, "v_emb": 0.0, "b2_cond": 0.2}),
}
DATASETS = {"cora": 0.80, "citeseer": 0.70, "pubmed": 0.78}
SPREAD_SEED, SPREAD_RUN = 0.010, 0.004


@dataclass
class Truth:
    """What a study is made of; see the module."""

    datasets: dict = field(default_factory=lambda: dict(DATASETS))
    methods: dict = field(default_factory=lambda: dict(METHODS))
    seeds: int = 10
    evaluations: int = 20
    steps: int = 200
    baseline: str | None = "neighbor"
    target: float | None = None
    instruments: bool = True
    failed: tuple = (("citeseer", "gas", 3),)
    diverged: tuple = ()
    unfinished: tuple = ()
    absent: tuple = ()

    def normal(self, *path):
        return float(Key(4).fold("study", *path).numpy().normal())

    def score(self, dataset, method, seed):
        """A seed's own luck is shared by all methods: pairs take it out."""
        mean = self.datasets[dataset] + self.methods[method][0]
        shared = SPREAD_SEED * self.normal(dataset, seed)
        return mean + shared + SPREAD_RUN * self.normal(dataset, method, seed)

    def curve(self, dataset, method, seed, step):
        """Of validation, without noise: ever closer to the score."""
        final, speed = self.score(dataset, method, seed), self.methods[method][1]
        slower = 1 + 0.2 * self.normal(dataset, method, seed, "speed")
        return final * (1 - 0.6 * np.exp(-step / (speed * max(slower, 0.3))))


def write_study(folder: Path, truth: Truth) -> Path:
    """The folder, as an engine would leave it."""
    cells = []
    for dataset in truth.datasets:
        for method in truth.methods:
            name = f"{dataset}/gcn/{method}"
            labels = {"dataset": dataset, "model": "gcn", "sampler": method}
            cells.append(
                {
                    "name": name,
                    "slug": name.replace("/", "-"),
                    "labels": labels,
                    "config": {"dataset": dataset, "sampler": method, "instruments": "sampler"},
                }
            )
    document = {
        "name": "Four samplers on three citation graphs",
        "id": "0123456789abcdef",
        "baseline": truth.baseline and f"{next(iter(truth.datasets))}/gcn/{truth.baseline}",
        "target": {"metric": "valid", "value": truth.target},
        "budget": {"steps": truth.steps},
        "axes": {"dataset": [*truth.datasets], "model": ["gcn"], "sampler": [*truth.methods]},
        "seeds": [*range(truth.seeds)],
        "cells": cells,
        "tuning": None,
        "command": "graphdyn study study.toml --out study",
        "machine": {"device": "x86_64, 1 thread(s)", "cores": 2},
        "versions": {"graphdyn": "0.1.0", "torch": "2.13.0"},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.json").write_text(json.dumps(document))
    for cell in cells:
        at = cell["labels"]["dataset"], cell["labels"]["sampler"]
        for seed in range(truth.seeds):
            place = folder / "cells" / cell["slug"] / f"seed-{seed}"
            place.parent.mkdir(parents=True, exist_ok=True)
            if (*at, seed) in truth.absent:
                continue
            if (*at, seed) in truth.failed:
                told = {"error": "MemoryError", "reason": "no memory <left> & lost.", "attempts": 2}
                place.with_name(f"seed-{seed}.failed.json").write_text(json.dumps(told))
            else:
                _write_run(place, truth, *at, seed)
    return folder


def _write_run(place, truth, dataset, method, seed):
    _, _, edges, seconds, size, _ = truth.methods[method]
    config = Config(
        dataset=dataset, sampler=method if method != "gas" else None, first_seed=seed, out=place
    )
    record = Record.open(config)
    slow = 1 + 0.05 * truth.normal(dataset, method, seed, "seconds")
    every = truth.steps // truth.evaluations
    for epoch in range(1, truth.evaluations + 1):
        step = epoch * every
        clock = Clock(seed, step, epoch, step * seconds * slow, step * edges, step * size)
        value = truth.curve(dataset, method, seed, step)
        for part in ("train", "valid", "test"):
            record.add(clock, Metric("loss", part, 1 - value))
            record.add(clock, Metric("accuracy", part, value))
        if truth.instruments:
            _measure(record, clock, truth, method)
    record.add(clock, Event("rate_fit invalid", "5 losses were noted; a fit takes 16."))
    if (dataset, method, seed) in truth.unfinished:
        record.journal.write()
    else:
        record.finish(_summary(config, truth, dataset, method, seed, clock))
    record.close()


def _measure(record, clock, truth, method):
    parts = truth.methods[method][-1]
    share = 1 + clock.step / truth.steps
    for what, value in parts.items():
        record.add(clock, Metric(f"sampler_mse.{what}", "all", value * share, 0.01 * share, n=8))
    total = sum(parts.values()) * share
    record.add(clock, Metric("sampler_mse.cross", "all", 0.0, 0.01, n=8))
    record.add(clock, Metric("sampler_mse.mse", "all", total, 0.02, n=8))
    record.add(clock, Metric("sampler_mse.square", "all", 1.0, 0.02, n=4))
    wrong = 1.5 if method == "full" else 1.01  # its theory does not hold
    record.add(clock, Metric("effective_lr.effective_lr", "convs.0", 0.01 * wrong, pred=0.01))
    record.add(clock, Metric("noise_scale.noise_scale", "all", 40 * share, 2.0))
    if method == "gas":
        record.add(clock, Metric("staleness.error", "all", 0.2 / share, 0.01, n=8))
        record.add(clock, Metric("staleness.age", "all", 12.0, 0.1, n=8))


def _summary(config, truth, dataset, method, seed, clock):
    value = truth.score(dataset, method, seed)
    value = None if (dataset, method, seed) in truth.diverged else value
    spread = {"mean": value, "std": None, "n": 1, "values": [value]}
    ledger = {
        "precompute": 0.5,
        "sample": 0.3 * clock.seconds,
        "gather": 0.1 * clock.seconds,
        "transfer": 0.0,
        "wait": 0.1 * clock.seconds,
        "compute": 0.8 * clock.seconds,
        "memory": 0.1 * clock.seconds,
        "instruments": 0.05 * clock.seconds,
        "evaluate": 0.2,
    }
    return {
        "id": config.id,
        "dataset": dataset,
        "split": ["public"],
        "model": "gcn",
        "preset": None,
        "sampler": method,
        "memory": "",
        "metric": "accuracy",
        "seeds": [seed],
        "test": spread,
        "validation": spread,
        "train": spread,
        "best_epoch": [truth.evaluations],
        "epochs": [truth.evaluations],
        "steps": [clock.step],
        "edges": [clock.edges],
        "nodes": [clock.edges // 2],
        "bytes": [clock.bytes],
        "parameters": 92359,
        "seconds": {**ledger, "total": sum(ledger.values())},
        "peak_memory_bytes": 2**29 if method == "full" else 2**28,
        "device": "x86_64, 1 thread(s)",
        "versions": {"python": "3.11.7", "graphdyn": "0.1.0", "torch": "2.13.0"},
    }


def imagined(scores, baseline, curves=None, lost=()):
    """A study of runs that never were.

    scores: (dataset, method) to fractions, one a seed. curves: the same keys, to (steps, values) a seed.
    """
    datasets, methods = (list(dict.fromkeys(key[i] for key in scores)) for i in (0, 1))
    seeds = max(map(len, scores.values()))
    cells = {
        at: Cell("/".join(at), "-".join(at), *at, {}, _imagined(values, curves and curves[at]), [])
        for at, values in scores.items()
    }
    for at, seed in lost:
        del cells[at].runs[seed]
        cells[at].missing.append(Missing(seed, "failed", "lost."))
    document = {"name": "imagined", "seeds": [*range(seeds)], "cells": [], "command": "none"}
    names = (datasets, methods, baseline, True, "accuracy", "test")
    return Study(Path("nowhere"), document, cells, *names)


def _imagined(scores, curves):
    runs = {}
    for seed, value in enumerate(scores):
        steps, values = curves[seed] if curves else ([1.0], [value])
        curve = Curve({"steps": np.array(steps, float)}, np.array(values, float))
        cost = {"steps": curve.at["steps"][-1], "seconds": 2.0, "edges": 100.0}
        runs[seed] = Run(seed, Path("nowhere"), float(value), cost, {"total": 3.0}, curve, {})
    return runs
