"""How wrong is a sampled gradient while a network trains, and why? See README.md.

python experiments/gradient_error/run.py [--datasets pubmed ...] [--only sage ...] [--seeds 5] [--tiny]
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from probe import Estimate, Truth, probe
from torch import Tensor

import graphdyn as gd
from graphdyn.batch import Batch
from graphdyn.data import resplit
from graphdyn.loader import gather
from graphdyn.memories import Memory
from graphdyn.progress import progress
from graphdyn.samplers import Plans
from graphdyn.step import update

BATCH = 512
PART = 128  # training nodes of a part: four parts are a batch
STEPS = (0, 10, 30, 70)  # halfway between two refreshes of MVS, which come every 20
LR = 0.01
DRIVER = "sage"  # who trains the common trajectory
# Measured on the common trajectory alone.
ABLATIONS = (
    "cluster, published",
    "lmc, b = 0",
    "lmc, b = 0, random nodes",
    "mvs, uniform seeds",
    "mvs, K = 1",
)


@dataclass(frozen=True)
class Case:
    """A data set: how it is loaded, how much is measured.

    Attributes:
        name: Of the data set.
        split: With enough training nodes for batches of 512; ``None``: the data set's own.
        normalize: Divide rows of features by their sums.
        draws: Plans a probe.
        refresh: Share of the training nodes that MVS scores at a refresh.
    """

    name: str
    split: str | None = None
    normalize: bool = True
    draws: int = 16
    refresh: float = 1.0


CASES = {
    "pubmed": Case("pubmed", split="geom-gcn"),
    "coauthor-cs": Case("coauthor-cs"),
    "amazon-photo": Case("amazon-photo"),
    "ogbn-arxiv-tape": Case("ogbn-arxiv-tape", normalize=False, draws=8, refresh=0.1),
    "csbm": Case("csbm", normalize=False, draws=2),
}


def methods(graph: gd.Graph, case: Case) -> dict[str, dict[str, Any]]:
    """What :func:`graphdyn.method` is told, by name: equal numbers of seeds, otherwise as published."""
    assert graph.split is not None
    train = graph.split.train.numel()
    batch = min(BATCH, train // 4)
    parts = max(train // PART, 8)
    seeds = {"batch_size": batch}
    nodes = batch * graph.num_nodes // train  # of which `batch` are training nodes
    together = max(round(parts * batch / train), 2)
    part = {"sampler": "cluster", "parts": parts, "parts_per_batch": together}
    random = {"sampler": "node", "batch_size": nodes, "estimator": "unit"}
    mvs = {"preset": "mvs", "share": case.refresh, **seeds}
    return {
        "sage": {"sampler": "neighbor", "fanouts": 5, **seeds},
        "labor": {"sampler": "labor", "fanouts": 5, **seeds},
        "ladies": {"sampler": "ladies", "nodes": batch, **seeds},
        "cluster": part,
        "cluster, published": part | {"estimator": "published"},
        "saint-node": {"sampler": "saint-node", "budget": nodes},
        "vr-gcn": {"preset": "vr-gcn", "fanouts": 2, **seeds},
        "gas": part | {"preset": "gas"},
        "gas, random seeds": {"sampler": "induced", "memory": "history", **seeds},
        "lmc": part | {"preset": "lmc"},
        "lmc, b = 0": part | {"preset": "lmc", "beta": 0.0},
        "lmc, b = 0, random nodes": random | {"memory": "lmc", "beta": 0.0},
        "mvs": mvs,
        "mvs, uniform seeds": mvs | {"floor": 1.0},
        "mvs, K = 1": mvs | {"inner_steps": 1},
    }


class Lane:
    """A method bound to a model: its plans, its memory, the batches it would train on."""

    def __init__(self, model: Any, graph: gd.Graph, options: dict[str, Any], seed: int):
        self.model, self.graph, self.seed = model, graph, seed
        self.plans: Plans
        self.memory: Memory
        self.plans, self.memory = gd.method(**options).prepare(model, graph, key=gd.Key(seed))
        self.memory.start()

    def batches(self) -> Iterator[Batch]:
        """One a step, made when it is asked for."""
        assert self.graph.x is not None
        assert self.graph.y is not None
        for key in self.plans.keys(gd.Key(self.seed), range(1 << 30)):
            yield gather(self.plans.plan(key), self.graph.x, self.graph.y)


def trajectory(
    graph: gd.Graph, lanes: dict[str, Lane], driver: str, case: Case, seed: int, steps: tuple
) -> Iterator[dict[str, Any]]:
    """Train by one lane while the memories of the others keep up; rows of all lanes at each checkpoint.

    A follower's step is one of training, but that the weights move as the driver moved them.
    """
    model = lanes[driver].model
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    batches = {name: lane.batches() for name, lane in lanes.items()}
    followers = [n for n in lanes if n != driver and lanes[n].memory.state()]
    for step in range(steps[-1] + 1):
        if step in steps:
            yield from checkpoint(graph, lanes, case, seed, step)
        before = weights(model)
        update(model, next(batches[driver]), optimizer, memory=lanes[driver].memory, hidden=False)
        along = Along(model, weights(model))
        for name in followers:
            Along(model, before).step()
            update(model, next(batches[name]), along, memory=lanes[name].memory, hidden=False)


class Along(torch.optim.Optimizer):
    """Moves to weights that are known, whatever the gradient is."""

    def __init__(self, model: Any, target: list[Tensor]):
        super().__init__(model.parameters(), {})
        self.target = target

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for parameter, value in zip(self.param_groups[0]["params"], self.target):
            parameter.copy_(value)


def weights(model: Any) -> list[Tensor]:
    """Copies of the parameters."""
    return [p.detach().clone() for p in model.parameters()]


def checkpoint(
    graph: gd.Graph, lanes: dict[str, Lane], case: Case, seed: int, step: int
) -> Iterator[dict[str, Any]]:
    """One row a lane, all at the same weights."""
    model = next(iter(lanes.values())).model
    # Exact gradients cost most, but lanes that stand beside each other share those of their seeds.
    exact = 0 if len(lanes) == 1 else max(2, case.draws // 2)
    truth = Truth(model, graph)
    key = gd.Key(seed).fold("checkpoint", step)
    for name, lane in lanes.items():
        found = probe(truth, lane.plans, lane.memory, key, draws=case.draws, exact=exact)
        row: dict[str, Any] = {"method": name, "seed": seed, "step": step}
        row |= {"loss": truth.loss, "size": truth.size}
        yield row | {k: v.value for k, v in found.items()} | errors_of(found)


def errors_of(found: dict[str, Estimate]) -> dict[str, Any]:
    """Standard errors, by the names of what they belong to."""
    return {f"{name}_se": estimate.se for name, estimate in found.items()}


def load(case: Case, seed: int) -> gd.Graph:
    """The graph under the split of a seed."""
    graph = whole(case)
    return resplit(graph, case.name, split=case.split, seed=seed) if case.split else graph


@cache
def whole(case: Case) -> gd.Graph:
    """The graph, read once."""
    graph = gd.load(case.name, split=case.split)
    return gd.row_normalize(graph) if case.normalize else graph


def build(graph: gd.Graph, seed: int) -> Any:
    """Two convolutions of 256 and a linear output, as in the code of the paper."""
    features, classes = graph.num_features, graph.num_classes
    return gd.GCN(features, classes, hidden=256, layers=2, head="linear", seed=seed)


class Rows:
    """Rows of one data set in a file, one a line; what is there is not measured again."""

    def __init__(self, path: Path, last: int):
        self.path, self.last = path, last
        lines = path.read_text().splitlines() if path.exists() else []
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def missing(self, names: list[str], trajectory: str, seed: int) -> list[str]:
        """Methods without a row of the last step."""
        there = {
            r["method"]
            for r in self.rows
            if (r["trajectory"], r["seed"], r["step"]) == (trajectory, seed, self.last)
        }
        return [name for name in names if name not in there]

    def add(self, rows: list[dict[str, Any]], trajectory: str) -> None:
        """Of a whole trajectory, so that none is there in part."""
        rows = [{"trajectory": trajectory, **row} for row in rows]
        self.rows += rows
        with self.path.open("a") as file:
            file.writelines(json.dumps(rounded(row)) + "\n" for row in rows)


def rounded(row: dict[str, Any]) -> dict[str, Any]:
    """Four digits are more than standard errors allow."""
    return {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in row.items()}


def measure(case: Case, seed: int, options: argparse.Namespace) -> None:
    """The trajectories of a data set and a seed that are not in its file."""
    steps = (0, 1) if options.tiny else STEPS
    rows = Rows(options.out / f"{case.name}.jsonl", steps[-1])
    graph = load(case, seed)
    table = {n: o for n, o in methods(graph, case).items() if not options.only or n in options.only}
    alone = [n for n in table if n not in ABLATIONS] if "own" in options.trajectories else []
    for name in rows.missing(alone, "own", seed):
        lanes = {name: Lane(build(graph, seed), graph, table[name], seed)}
        rows.add([*trajectory(graph, lanes, name, case, seed, steps)], "own")
    common = rows.missing([*table], "common", seed) if "common" in options.trajectories else []
    if not common or seed >= options.common_seeds:
        return
    model = build(graph, seed)
    chosen = {n: methods(graph, case)[n] for n in dict.fromkeys([*common, DRIVER])}
    lanes = {n: Lane(model, graph, o, seed) for n, o in chosen.items()}
    found = [*trajectory(graph, lanes, DRIVER, case, seed, steps)]
    rows.add([row for row in found if row["method"] in common], "common")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", nargs="*", choices=list(CASES), default=list(CASES)[:4])
    parser.add_argument("--only", nargs="*", help="methods; all by default")
    parser.add_argument("--seeds", type=int, default=5)
    kinds = ["own", "common"]
    parser.add_argument("--trajectories", nargs="*", choices=kinds, default=kinds)
    parser.add_argument("--common-seeds", type=int, default=3, help="of the common trajectory")
    parser.add_argument("--out", type=Path, default=Path("runs/gradient_error"))
    parser.add_argument("--tiny", action="store_true", help="a small graph: does it run?")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.tiny:
        options.datasets, options.seeds = ["csbm"], 1
    options.out.mkdir(parents=True, exist_ok=True)
    todo = [(CASES[n], seed) for seed in range(options.seeds) for n in options.datasets]
    with progress("trajectories", len(todo), 0) as bar:
        for done, (case, seed) in enumerate(todo, 1):
            measure(case, seed, options)
            bar.update(done, f"{case.name}, seed {seed}")


if __name__ == "__main__":
    main()
