"""What instruments cost: each alone, and presets under a budget, on three kinds of steps.

    python benchmarks/instruments.py [--only cora ...] [--rounds 6] [--seconds 5] [--save]

*cora*: a step of full-batch GCN on Cora; *arxiv*: a mini-batch of 1024 seeds of a GCN of 3 x 256 on
ogbn-arxiv-tape; *mlp*: 784-2048-2048-10 on batches of 128. One thread. Two equal loops in one process, one of
them with a recorder, take turns; the overhead is the median over rounds of the ratio of their times a step, less 1. It holds all there is,
also what the recorder does not know of itself.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from common import save
from torch import Tensor, nn

import graphdyn as gd
from graphdyn.instruments import INSTRUMENTS
from graphdyn.machine import reuse_memory

BUDGET = 0.05


class Case:
    """A loop that can be left and taken up again.

    Attributes:
        model: In the midst of training.
        optimizer: Its own.
        problem: What is trained.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    problem: gd.Problem

    def losses(self) -> Iterator[Tensor]:
        """One step after another, for ever."""
        raise NotImplementedError

    def seconds(self, count: int, each: Callable[[Tensor], None] = lambda loss: None) -> float:
        """Mean time of so many steps."""
        if not hasattr(self, "_run"):
            self._run = self.losses()
        start = time.perf_counter()
        for _ in range(count):
            each(next(self._run))
        return (time.perf_counter() - start) / count


class Nodes(Case):
    """A GCN on a graph."""

    def __init__(self, graph: gd.Graph, method: dict[str, Any], **shape: Any):
        self.model = gd.GCN(graph.num_features, graph.num_classes, norm="batch", **shape)
        plans, self.memory = gd.method(**method).prepare(self.model, graph)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, weight_decay=5e-4)
        self.loader = gd.Loader(plans, graph, epochs=10**6, workers=0)
        self.problem = gd.NodeProblem(self.model, graph, plans, memory=self.memory)

    def losses(self) -> Iterator[Tensor]:
        """See :meth:`Case.losses`."""
        for step in gd.train(
            self.model, self.loader, self.optimizer, memory=self.memory, hidden=False
        ):
            yield step.loss


class Wide(Case):
    """A wide network on random data: nothing of graphs."""

    def __init__(self) -> None:
        rng = gd.Key(0).generator()
        x, y = torch.randn(4096, 784, generator=rng), torch.randint(0, 10, (4096,), generator=rng)
        wide = nn.Linear(784, 2048), nn.ReLU(), nn.Linear(2048, 2048), nn.ReLU()
        self.model = nn.Sequential(*wide, nn.Linear(2048, 10))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05, weight_decay=5e-4)

        def draw(key: gd.Key) -> tuple[Tensor, Tensor]:
            rows = key.permutation(4096)[:128]
            return x[rows], y[rows]

        def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
            return nn.functional.cross_entropy(model(batch[0]), batch[1])

        self.problem = gd.FunctionProblem(loss, draw, num_targets=4096, batch_size=128)

    def losses(self) -> Iterator[Tensor]:
        """See :meth:`Case.losses`."""
        for step in range(10**9):
            value = self.problem.loss(self.model, self.problem.draw(gd.Key(1).at(step=step)))
            self.optimizer.zero_grad()
            value.backward()
            self.optimizer.step()
            yield value.detach()


def cases() -> dict[str, Callable[[], Case]]:
    """By name; made when they are asked for."""
    seeds = {"sampler": "neighbor", "fanouts": "15,10,5", "batch_size": 1024}
    return {
        "cora": lambda: Nodes(gd.load("cora"), {"sampler": "full"}, hidden=64, dropout=0.5),
        "arxiv": lambda: Nodes(gd.load("ogbn-arxiv-tape"), seeds, hidden=256, layers=3),
        "mlp": Wide,
    }


def alone(case: Case) -> dict[str, Any]:
    """Milliseconds of one measurement of each instrument with its default options, and the first apart."""
    found: dict[str, Any] = {}
    for name, kind in INSTRUMENTS.items():
        if name == "time_to_target":
            continue  # reads what the loop has evaluated
        try:
            found[name] = _one(case, kind(every=1))
        except gd.InputError as error:
            found[name] = {"invalid": str(error)}
    return found


def _one(case: Case, instrument: gd.Instrument) -> dict[str, Any]:
    times = []
    with gd.Recorder(case.model, case.optimizer, [instrument], problem=case.problem) as recorder:
        case.seconds(1, lambda loss: recorder.log(loss=loss))
        for _ in range(3):
            before = recorder.budget.spent
            case.seconds(1, lambda loss: recorder.log(loss=loss))
            times.append(1e3 * (recorder.budget.spent - before))
        off = recorder.watches[0].off
    return {"invalid": off} if off else {"ms": statistics.median(times[1:]), "first_ms": times[0]}


def together(make: Callable[[], Case], preset: str, rounds: int, seconds: float) -> dict[str, Any]:
    """Overhead of a preset under the budget."""
    bare, watched = make(), make()
    bare.seconds(3), watched.seconds(3)
    count = max(3, int(seconds / bare.seconds(5)))
    instruments = gd.build_instruments(preset)
    recorder = gd.Recorder(
        watched.model, watched.optimizer, instruments, problem=watched.problem, budget=BUDGET
    )
    without, with_them = [], []
    with recorder:
        for _ in range(rounds):
            without.append(bare.seconds(count))
            with_them.append(watched.seconds(count, lambda loss: recorder.log(loss=loss)))
    rounds_of = [a / b - 1 for a, b in zip(with_them, without)]
    return {
        "overhead": statistics.median(rounds_of),
        "rounds": rounds_of,
        "charged": recorder.budget.overhead,
        "step_ms": 1e3 * statistics.median(without),
        "steps": rounds * count,
        "measured": {name: len(steps) for name, steps in recorder.firings.items()},
        "off": {w.instrument.name: w.off for w in recorder.watches if w.off},
    }


def show(name: str, result: dict[str, Any]) -> None:
    """A table for people."""
    print(f"{name}: {result['step_ms']:.2f} ms a step")
    for instrument, cost in result["alone"].items():
        told = (
            cost.get("invalid")
            or f"{cost['ms']:9.2f} ms ({cost['ms'] / result['step_ms']:.2f} steps)"
        )
        print(f"  {instrument:22}{told}")
    for preset, found in result["presets"].items():
        times = sum(found["measured"].values())
        print(
            f"  {preset}, budget {BUDGET:.0%}: {found['overhead']:+.1%} by the clock, {found['charged']:.1%} "
            f"by its own account; {times} measurements in {found['steps']} steps"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=list(cases()), choices=list(cases()))
    parser.add_argument("--presets", nargs="*", default=["light", "standard", "sampler"])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=5.0, help="of a round")
    parser.add_argument("--save", action="store_true", help="keep results/instruments.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    reuse_memory()
    results: dict[str, Any] = {}
    for name in options.only:
        make = cases()[name]
        case = make()
        case.seconds(3)
        results[name] = {"step_ms": 1e3 * case.seconds(5), "alone": alone(case), "presets": {}}
        for preset in options.presets:
            of = together(make, preset, options.rounds, options.seconds)
            results[name]["presets"][preset] = of
        show(name, results[name])
    if options.save:
        print(save("instruments", results))


if __name__ == "__main__":
    main()
