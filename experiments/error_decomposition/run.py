"""Whose fault is the error of a sampled gradient, while a network learns and as batches grow? See README.md.

python experiments/error_decomposition/run.py [--datasets pubmed ...] [--seeds 2] [--tiny]
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import graphdyn as gd
from graphdyn.batch import full_batch
from graphdyn.data import resplit
from graphdyn.estimate import Estimate
from graphdyn.groups import Groups
from graphdyn.instruments.sampler_mse import SamplerMSE
from graphdyn.loader import gather
from graphdyn.node_problem import NodeProblem
from graphdyn.progress import progress
from graphdyn.snapshot import Snapshot
from graphdyn.step import update

LR, HIDDEN = 0.01, 64
METHODS = ("neighbor", "labor", "ladies", "cluster", "gas")


@dataclass(frozen=True)
class Case:
    """How a data set is loaded, and how much is measured.

    Attributes:
        name: Of the data set.
        split: ``None``: its own.
        steps: Checkpoints of a full-batch trajectory.
        batch: Targets a step, along it.
        sizes: Targets a step at its end.
        m: Batches of a measurement along it.
        many: Batches at its end, where small biases are looked for.
    """

    name: str
    split: str | None = None
    steps: tuple[int, ...] = (0, 10, 30, 100, 300)
    batch: int = 512
    sizes: tuple[int, ...] = (128, 512, 2048)
    m: int = 16
    many: int = 32


CASES = {
    "pubmed": Case("pubmed", "geom-gcn"),
    "ogbn-arxiv-tape": Case("ogbn-arxiv-tape", steps=(0, 5, 20), sizes=(), m=5),
    "csbm": Case("csbm", steps=(0, 2), batch=20, sizes=(10, 20, 40), m=3, many=3),
}


def method(name: str, graph: gd.Graph, batch: int) -> dict[str, Any]:
    """What :func:`graphdyn.method` is told, for so many targets a step."""
    assert graph.split is not None
    train = graph.split.train.numel()
    parts = max(train // 64, 8)  # of 64 training nodes each
    together = max(round(parts * batch / train), 2)
    part = {"parts": parts, "parts_per_batch": together}
    return {
        "neighbor": {"sampler": "neighbor", "fanouts": 5, "batch_size": batch},
        "labor": {"sampler": "labor", "fanouts": 5, "batch_size": batch},
        "ladies": {"sampler": "ladies", "nodes": batch, "batch_size": batch},
        "cluster": {"sampler": "cluster", **part},
        "gas": {"preset": "gas", **part},
    }[name]


class Trajectory:
    """Weights that full-batch Adam goes through, and what the exact loss is there."""

    def __init__(self, graph: gd.Graph, model: Any, steps: int):
        self.model, self.weights, self.losses = model, [], []
        batch = full_batch(graph, model.propagation)
        optimizer = torch.optim.Adam(model.parameters(), lr=LR)
        for _ in range(steps + 1):
            self.weights.append([p.detach().clone() for p in model.parameters()])
            done = update(model, batch, optimizer, hidden=False)
            self.losses.append(float(done.loss))

    def go(self, step: int) -> None:
        """Put the model there."""
        with torch.no_grad():
            for parameter, value in zip(self.model.parameters(), self.weights[step]):
                parameter.copy_(value)


class Lane:
    """A method at the weights of a path; what it remembers, it has remembered along the path."""

    def __init__(self, graph: gd.Graph, path: Trajectory, options: dict[str, Any], seed: int):
        self.graph, self.path, self.seed, self.at = graph, path, seed, 0
        path.go(0)
        prepared = gd.method(**options).prepare(path.model, graph, key=gd.Key(seed))
        self.plans, self.memory = prepared
        self.memory.start()
        self.keys = self.plans.keys(gd.Key(seed), range(1 << 30))
        self.still = torch.optim.SGD(path.model.parameters(), lr=0.0)

    def follow(self, step: int) -> None:
        """Up to a step, one batch a step; only memories need that."""
        while self.at < step and self.memory.state():
            self.path.go(self.at)
            assert self.graph.x is not None
            assert self.graph.y is not None
            batch = gather(self.plans.plan(next(self.keys)), self.graph.x, self.graph.y)
            update(self.path.model, batch, self.still, memory=self.memory, hidden=False)
            self.at += 1
        self.path.go(step)

    def measure(self, step: int, m: int) -> dict[str, Any]:
        """Parts of the error there, each with its standard error."""
        self.follow(step)
        model = self.path.model
        problem = NodeProblem(model, self.graph, self.plans, memory=self.memory)
        key = gd.Key(self.seed).fold("error decomposition").at(step=step)
        s = Snapshot(step, 0, model, self.still, Groups(model), problem, key)
        found = SamplerMSE(m=m, k=2).measure(s)
        row: dict[str, Any] = {"step": step, "loss": self.path.losses[step]}
        row["batch"] = problem.batch_size
        for name, e in found.items():
            if isinstance(name, str) and isinstance(e, Estimate):
                row[name], row[f"{name}_se"] = float(e.value), float(e.se or 0.0)
        return row


def measure(case: Case, seed: int) -> Iterator[dict[str, Any]]:
    """All rows of a data set and a seed."""
    graph = load(case, seed)
    model = gd.GCN(graph.num_features, graph.num_classes, hidden=HIDDEN, seed=seed)
    path = Trajectory(graph, model, case.steps[-1])
    own = {"dataset": case.name, "seed": seed}
    for name in METHODS:
        lane = Lane(graph, path, method(name, graph, case.batch), seed)
        for step in case.steps:
            yield own | {"part": "along", "method": name} | lane.measure(step, case.m)
    for name in METHODS:
        for size in case.sizes:
            lane = Lane(graph, path, method(name, graph, size), seed)
            found = lane.measure(case.steps[-1], case.many)
            yield own | {"part": "floor", "method": name} | found


def load(case: Case, seed: int) -> gd.Graph:
    """The graph under the split of a seed; rows of counts are divided by their sums."""
    graph = gd.load(case.name, split=case.split)
    graph = gd.row_normalize(graph) if case.name == "pubmed" else graph
    return resplit(graph, case.name, split=case.split, seed=seed) if case.split else graph


def rounded(row: dict[str, Any]) -> dict[str, Any]:
    """Four digits are more than standard errors allow."""
    return {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in row.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", nargs="*", choices=list(CASES), default=list(CASES)[:2])
    parser.add_argument("--seeds", type=int, default=2, help="on ogbn-arxiv-tape always one")
    parser.add_argument("--out", type=Path, default=Path("runs/error_decomposition"))
    parser.add_argument("--tiny", action="store_true", help="a small graph: does it run?")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = ["csbm"] if options.tiny else options.datasets
    seeds = {n: 1 if n == "ogbn-arxiv-tape" or options.tiny else options.seeds for n in names}
    options.out.mkdir(parents=True, exist_ok=True)
    todo = [(CASES[n], seed) for n in names for seed in range(seeds[n])]
    with progress("trajectories", len(todo), 0) as bar:
        for done, (case, seed) in enumerate(todo, 1):
            rows = [rounded(row) for row in measure(case, seed)]
            path = options.out / f"{case.name}-seed{seed}.json"
            path.write_text(json.dumps(rows, indent=0) + "\n")
            bar.update(done, f"{case.name}, seed {seed}")


if __name__ == "__main__":
    main()
