"""Do the weights of a GCN with batch norm turn by the angle that theory says? See README.md.

python experiments/rotational_equilibrium/run.py [--steps 2400] [--only drop] [--tiny] [--out FOLDER]
"""

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import graphdyn as gd

FEATURES, HIDDEN, BATCH = 64, 16, 35
SETS = ("convs.0.lin.weight", "convs.1.lin.weight")
BANDS = {"angle": 0.03, "norm": 0.02}
OPTIMIZERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "SGD": (torch.optim.SGD, {"lr": 0.5, "weight_decay": 4e-3}),
    "SGD, momentum 0.9": (
        torch.optim.SGD,
        {"lr": 0.2, "weight_decay": 1e-3, "momentum": 0.9},
    ),
    "SGD, Nesterov 0.9": (
        torch.optim.SGD,
        {"lr": 0.2, "weight_decay": 1e-3, "momentum": 0.9, "nesterov": True},
    ),
    "AdamW": (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.2}),
}
DROP, FAST = 10.0, {"lr": 0.5, "weight_decay": 0.016}
PAIRS = ((0.125, 0.016), (0.5, 0.004), (2.0, 0.001))  # equal products
HALF = (0.5, 0.002)


def cora() -> gd.Graph:
    """Cora with 64 random combinations of its features: dense, so that every weight has a gradient."""
    graph = gd.load("cora")
    x = graph.x.to_dense()
    rng = gd.Key(0).fold("projection").generator()
    return replace(graph, x=x @ torch.randn(x.shape[1], FEATURES, generator=rng))


def build(graph: gd.Graph, dropout: float = 0.5) -> gd.GCN:
    """Two convolutions, each in front of a batch norm; what is not scale-invariant is frozen."""
    options = {"hidden": HIDDEN, "layers": 2, "norm": "batch", "head": "linear", "bias": False}
    model = gd.GCN(graph.num_features, graph.num_classes, dropout=dropout, **options)
    for norm in model.norms:
        norm.eps = 1e-12
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in SETS)
    return model


def run(
    graph: gd.Graph,
    kind: Any,
    options: dict[str, Any],
    steps: int,
    *,
    drop: int = 0,
    every: int = 4,
):
    """Readings by (what, set), each a list of (step, value, prediction); a learning rate that may drop."""
    model = build(graph)
    sampler = gd.Neighbor(fanouts=(-1, -1), batch_size=BATCH, seeds="uniform")
    plans = sampler.prepare(graph, model.propagation, model.num_hops)
    optimizer = kind([model.get_parameter(name) for name in SETS], **options)
    instruments = [gd.EffectiveLR(every=every), gd.AngularUpdate(every=every)]
    problem = gd.NodeProblem(model, graph, plans)
    loader = gd.Loader(plans, graph, epochs=-(-steps // plans.num_batches), workers=0)
    with loader, gd.Recorder(model, optimizer, instruments, problem=problem) as recorder:
        for step in gd.train(model, loader, optimizer, hidden=False):
            if step.index + 1 == steps:
                break
            if drop and step.index + 1 == drop:
                optimizer.param_groups[0]["lr"] /= DROP
    found: dict[tuple[str, str], list[tuple[int, float, float | None]]] = {}
    for clock, row in recorder.sink.rows:
        if row.group in SETS:
            name = row.name.split(".")[1]
            found.setdefault((name, row.group), []).append((clock.step, row.value, row.pred))
    return found


def mean_of(series, start: int, power: int = 1) -> tuple[float, float]:
    """Power mean from a step on, and its relative standard error by ten blocks in time."""
    values = (
        torch.tensor([v for step, v, *_ in series if step > start], dtype=torch.float64) ** power
    )
    blocks = torch.stack([b.mean() for b in values.tensor_split(min(10, len(values)))])
    mean = blocks.mean()
    return float(mean) ** (1 / power), float(blocks.std() / len(blocks) ** 0.5 / mean / power)


def equilibrium(graph: gd.Graph, steps: int) -> dict[str, Any]:
    """Part 1: RMS angle and norm over the second half, beside their predictions."""
    rows: dict[str, Any] = {}
    for name, (kind, options) in OPTIMIZERS.items():
        found = run(graph, kind, options, steps)
        for group in SETS:
            angle, angle_se = mean_of(found["angle", group], steps // 2, 2)
            norm, norm_se = mean_of(found["norm", group], steps // 2)
            rate = options["lr"] / (1 - options.get("momentum", 0.0))
            settled = [p for step, _, p in found["effective_lr", group] if step > steps // 2][-1]
            power = 1 if kind is torch.optim.AdamW else 2
            rows[f"{name}: {group}"] = {
                "angle": angle,
                "angle_se": angle * angle_se,
                "angle_pred": found["rms", group][-1][2],
                "norm": norm,
                "norm_se": norm * norm_se,
                "norm_pred": (rate / settled) ** (1 / power),
            }
            row = rows[f"{name}: {group}"]
            print(f"{name}: {group}", {k: round(v, 5) for k, v in row.items()}, flush=True)
    return rows


def _rate(step: int, at: int) -> float:
    return FAST["lr"] / (DROP if step > at else 1.0)


def drop_of_learning_rate(graph: gd.Graph, steps: int) -> dict[str, Any]:
    """Part 2: the effective learning rate before, after and long after the learning rate fell by 10."""
    kind, options = torch.optim.SGD, FAST
    at = steps // 4
    found = run(graph, kind, options, steps, drop=at, every=1)
    rate = 4 * options["lr"] / DROP * options["weight_decay"]
    rows: dict[str, Any] = {}
    for group in SETS:
        series = found["effective_lr", group]
        before, _ = mean_of([r for r in series if r[0] <= at], at // 2)
        after = next(v for step, v, _ in series if step > at + 1)
        start = [v for step, v, _ in series if step <= at][-1]
        end, end_se = mean_of(series, steps - steps // 8)
        gamma = {s: v for s, v, _ in found["gamma", group]}
        first = [v for s, v in gamma.items() if s <= at][-1]
        curve = [
            (s, 1 / math.sqrt(first * (DROP + (DROP**2 - DROP) * math.exp(-rate * (s - at)))))
            for s in gamma
            if s > at
        ]
        rows[group] = {
            "at_once": after / start,
            "in_the_end": end / before,
            "in_the_end_se": end / before * end_se,
            "off_carried": max(
                abs(math.sqrt(_rate(s, at) / v) / p - 1)
                for (s, v, _), (_, _, p) in zip(series, found["norm", group])
            ),
            "measured": [(s, v) for s, v, _ in series],
            "carried": [(s, _rate(s, at) / p**2) for s, _, p in found["norm", group]],
            "constant_noise": curve,
        }
        print(group, {k: v for k, v in rows[group].items() if isinstance(v, float)}, flush=True)
    return rows


def collapse(graph: gd.Graph, steps: int) -> dict[str, Any]:
    """Part 3: runs of equal intrinsic learning rate, on the axis t x lr x wd."""
    rows: dict[str, Any] = {}
    for lr, decay in (*PAIRS, HALF):
        long = steps * 2 if (lr, decay) == HALF else steps
        found = run(graph, torch.optim.SGD, {"lr": lr, "weight_decay": decay}, long)
        rows[f"lr {lr:g}, wd {decay:g}"] = {
            "product": lr * decay,
            "angle": {g: [(s, v) for s, v, _ in found["angle", g]] for g in SETS},
            "effective_lr": {g: [(s, v) for s, v, _ in found["effective_lr", g]] for g in SETS},
        }
        print(lr, decay, [found["effective_lr", g][-1][1] for g in SETS], flush=True)
    return rows


def spread(rows: dict[str, Any], group: str, *, early: bool) -> float:
    """Largest over smallest effective learning rate of the runs of equal product, at the start or late."""
    values = []
    for row in rows.values():
        if row["product"] == PAIRS[0][0] * PAIRS[0][1]:
            series = row["effective_lr"][group]
            values.append(series[0][1] if early else mean_of(series, series[-1][0] // 2)[0])
    return max(values) / min(values)


def draw(path: Path, results: dict[str, Any]) -> None:
    """One row of panels: angles, the drop, the collapse."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 3.8), constrained_layout=True)
    rows = results["equilibrium"]
    for k, row in enumerate(rows.values()):
        for marker, what in (("o", "angle"), ("s", "norm")):
            ratio, se = row[what] / row[f"{what}_pred"], row[f"{what}_se"] / row[f"{what}_pred"]
            color = "C0" if what == "angle" else "C1"
            label = what if k == 0 else None
            left.errorbar(ratio, -k, xerr=2 * se, fmt=marker, color=color, label=label)
    left.axvspan(0.97, 1.03, color="0.92")
    left.set_yticks(
        [-k for k in range(len(rows))],
        [n.replace("convs.", "").replace(".lin.weight", "") for n in rows],
    )
    left.set_xlabel("measured / predicted")
    left.legend(loc="upper left", fontsize=8)
    for k, (group, row) in enumerate(results["drop"].items()):
        middle.plot(*zip(*row["measured"]), color=f"C{k}", lw=0.8, label=f"layer {group[6]}")
        middle.plot(
            *zip(*row["carried"]), "k--", lw=0.8, label=None if k else "from measured gradients"
        )
        middle.plot(
            *zip(*row["constant_noise"]), "k:", lw=1, label=None if k else "noise taken as constant"
        )
    middle.set(xlabel="step", ylabel="lr / |w|²", yscale="log")
    middle.legend(fontsize=8)
    for k, (name, row) in enumerate(results["collapse"].items()):
        steps, values = zip(*row["effective_lr"][SETS[0]])
        right.plot([s * row["product"] for s in steps], values, color=f"C{k}", lw=0.8, label=name)
    right.set(xlabel="step · lr · wd", ylabel="lr / |w|², layer 0", yscale="log")
    right.legend(fontsize=8)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--only", nargs="*", help="equilibrium, drop, collapse; the rest as it was")
    parser.add_argument("--tiny", action="store_true", help="a few steps, to see that it runs")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    torch.set_num_threads(1)
    steps = 40 if args.tiny else args.steps
    graph = cora()
    parts = {
        "equilibrium": lambda: equilibrium(graph, steps),
        "drop": lambda: drop_of_learning_rate(graph, 5 * steps // 3),
        "collapse": lambda: collapse(graph, 5 * steps // 8),
    }
    file = args.out / "results.json"
    results = json.loads(file.read_text()) if args.only else {}
    results |= {name: part() for name, part in parts.items() if name in (args.only or parts)}
    if "collapse" in (args.only or parts):
        for name, early in (("spread at first", True), ("spread in the second half", False)):
            results[name] = {g: spread(results["collapse"], g, early=early) for g in SETS}
            print(name, results[name])
    args.out.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(_rounded(results)) + "\n")
    draw(args.out / "equilibrium.png", results)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        thin = (
            value[:: max(1, len(value) // 100)]
            if value and isinstance(value[0], tuple | list)
            else value
        )
        return [_rounded(v) for v in thin]
    return float(f"{value:.5g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
