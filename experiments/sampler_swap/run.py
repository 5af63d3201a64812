"""Does another sampler change how fast weights turn, or only how much of it is signal? See README.md.

python experiments/sampler_swap/run.py [--steps 1000] [--tiny] [--out FOLDER]
"""

import argparse
import json
import math
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

import graphdyn as gd
from graphdyn.statistics import inner, squared_mean

FEATURES, HIDDEN = 64, 16
LR, DECAY = 0.5, 4e-3
SETS = ("convs.0.lin.weight", "convs.1.lin.weight")
SEEDS = {"batch_size": 35}
# Phases in this order: (name, arguments of graphdyn.method, whether all states are computed in the step).
PHASES: tuple[tuple[str, dict[str, Any], bool], ...] = (
    ("2 neighbours", {"sampler": "neighbor", "fanouts": 2, "seeds": "uniform", **SEEDS}, True),
    ("all neighbours", {"sampler": "neighbor", "fanouts": -1, "seeds": "uniform", **SEEDS}, True),
    ("labor, 2 neighbours", {"sampler": "labor", "fanouts": 2, **SEEDS}, True),
    ("cluster", {"sampler": "cluster", "parts": 40, "parts_per_batch": 10}, True),
    ("full batch", {"sampler": "full"}, True),
    ("vr-gcn", {"preset": "vr-gcn", "fanouts": 2, **SEEDS}, False),
    ("mvs", {"preset": "mvs", **SEEDS}, False),
    (
        "2 neighbours again",
        {"sampler": "neighbor", "fanouts": 2, "seeds": "uniform", **SEEDS},
        True,
    ),
)
BAND = 0.03  # of the angle


class SignalShare(gd.Instrument):
    """|E g|^2 and E|g|^2 of each set, from 8 batches at the same weights."""

    needs = gd.Need.PROBLEM

    def measure(self, s):
        """Unbiased both; their ratio is taken after averaging over time."""
        grads = s.probe(8).grads[:, 0]
        found = {}
        for name in SETS:
            gram = inner(grads[:, s.groups.places[name]])
            size = s.groups.pick(s.weights, [name]).double().square().sum()
            found["signal", name] = squared_mean(gram).value * size  # on the unit sphere
            found["power", name] = gram.diagonal().mean() * size
        return found


def cora() -> gd.Graph:
    """Cora with 64 random combinations of its features."""
    graph = gd.load("cora")
    x = graph.x.to_dense()
    rng = gd.Key(0).fold("projection").generator()
    return replace(graph, x=x @ torch.randn(x.shape[1], FEATURES, generator=rng))


def build(graph: gd.Graph) -> gd.GCN:
    """Two convolutions, each in front of a batch norm; what is not scale-invariant is frozen."""
    options = {"hidden": HIDDEN, "layers": 2, "norm": "batch", "head": "linear", "bias": False}
    model = gd.GCN(graph.num_features, graph.num_classes, dropout=0.5, **options)
    for norm in model.norms:
        norm.eps = 1e-12
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in SETS)
    return model


def phase(graph, model, optimizer, how: dict[str, Any], steps: int, index: int) -> dict:
    """Train on with one sampler; readings by (what, set), each a list of (step, value)."""
    plans, memory = gd.method(**how).prepare(model, graph)
    memory.start()
    problem = gd.NodeProblem(model, graph, plans, memory=memory)
    every = max(1, steps // 40)
    instruments = [
        gd.AngularUpdate(every=1),
        gd.EffectiveLR(every=1),
        gd.SymmetryMap(every=5),
        SignalShare(every=every),
    ]
    key = gd.Key(index)
    loader = gd.Loader(plans, graph, key=key, epochs=steps, workers=0)
    recorder = gd.Recorder(model, optimizer, instruments, problem=problem, seed=index)
    batches = gd.train(model, loader, optimizer, memory=memory, hidden=False)
    with loader, recorder:
        for _ in islice(batches, steps):
            pass
    found: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for clock, row in recorder.sink.rows:
        if row.group in SETS:
            found.setdefault((row.name, row.group), []).append((clock.step, row.value))
    return found


def mean_of(series, start: int, power: int = 1, blocks: int = 10) -> tuple[float, float]:
    """Power mean from a step on, and its standard error by blocks in time."""
    values = torch.tensor([v for step, v in series if step > start], dtype=torch.float64) ** power
    means = torch.stack([b.mean() for b in values.tensor_split(min(blocks, len(values)))])
    root = float(means.mean()) ** (1 / power)
    return root, root * float(means.std() / len(means) ** 0.5 / means.mean()) / power


def share_of(found, group: str, start: int) -> tuple[float, float]:
    """Signal over power, ratio of means over time; standard error by the jackknife over measurements."""
    pairs = [
        [v for step, v in found[f"signal_share.{what}", group] if step > start]
        for what in ("signal", "power")
    ]
    signal, power = (torch.tensor(p, dtype=torch.float64) for p in pairs)
    n = len(signal)
    without = (signal.sum() - signal) / (power.sum() - power)
    se = ((without - without.mean()).square().sum() * (n - 1) / n).sqrt()
    return float(signal.sum() / power.sum()), float(se)


def summary(found, group: str, steps: int) -> dict[str, float]:
    """One row of the table, over the second half of a phase."""
    half = steps // 2
    angle, angle_se = mean_of(found["angular_update.angle", group], half, 2)
    norm, norm_se = mean_of(found["effective_lr.norm", group], half)
    share, share_se = share_of(found, group, half)
    cosine = found["symmetry_map.cosine", group][-1][1]
    own = {"angle": angle, "angle_se": angle_se, "norm": norm, "norm_se": norm_se}
    return own | {"share": share, "share_se": share_se, "cosine": cosine}


def draw(path: Path, results: dict[str, Any]) -> None:
    """Angles, norms and shares by phase."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.2), constrained_layout=True)
    names = [*results]
    for k, group in enumerate(SETS):
        x = [i + 0.15 * k for i in range(len(names))]
        for axes, what, scale in (
            (left, "angle", results[names[0]]["pred"]),
            (right, "share", 1.0),
        ):
            rows = [results[n][group] for n in names]
            y, se = ([r[w] / scale for r in rows] for w in (what, f"{what}_se"))
            axes.errorbar(x, y, yerr=[2 * e for e in se], fmt="o", label=f"layer {k}")
    left.axhspan(1 - BAND, 1 + BAND, color="0.92")
    left.set(ylabel="RMS angle / sqrt(2 lr wd)")
    right.set(ylabel="share of the signal, |E g|² / E|g|²")
    for axes in (left, right):
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
        axes.legend()
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000, help="of each phase")
    parser.add_argument("--tiny", action="store_true", help="a few steps, to see that it runs")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    torch.set_num_threads(1)
    steps = 10 if args.tiny else args.steps
    graph = cora()
    model = build(graph)
    optimizer = torch.optim.SGD([model.get_parameter(n) for n in SETS], lr=LR, weight_decay=DECAY)
    results: dict[str, Any] = {}
    for index, (name, how, fresh) in enumerate(PHASES):
        first = 2 if index == 0 else 1  # the first phase comes from far
        found = phase(graph, model, optimizer, how, first * steps, index)
        row = {group: summary(found, group, first * steps) for group in SETS}
        results[name] = {**row, "pred": math.sqrt(2 * LR * DECAY), "fresh": fresh}
        short = {g: {k: round(v, 5) for k, v in r.items()} for g, r in row.items()}
        print(name, short, flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    draw(args.out / "swap.png", results)


if __name__ == "__main__":
    main()
