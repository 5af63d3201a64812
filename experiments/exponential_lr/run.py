"""Is weight decay the same as a learning rate that grows exponentially? See README.md.

python experiments/exponential_lr/run.py [--steps 200] [--tiny] [--out FOLDER]
"""

import argparse
import json
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch

import graphdyn as gd

FEATURES, HIDDEN, BATCH = 64, 16, 35
LR, DECAY = 0.1, 0.02
MOMENTUM_LR = 0.03  # the same steps are three times as long as without momentum, not ten times
INVARIANT = ("convs.0.lin.weight", "convs.1.lin.weight")
EXACT, SEEN = 1e-12, 1e-6  # relative deviation of losses: below is the same, above is not


@dataclass(frozen=True)
class Case:
    """One pair of runs.

    Attributes:
        momentum: mu.
        eps: Of the batch norms.
        sampled: 35 training nodes a step, 5 neighbours a hop, dropout; otherwise the full batch without.
        buffer: Start the second run's momentum as the theory asks.
        shift: Added to the exponent of the learning rate, which is right at 0.
    """

    momentum: float = 0.0
    eps: float = 0.0
    sampled: bool = True
    buffer: bool = True
    shift: int = 0

    @property
    def lr(self) -> float:
        """Where it starts."""
        return MOMENTUM_LR if self.momentum else LR

    @property
    def root(self) -> float:
        """z, the larger root of z^2 - (1 + mu - lr wd) z + mu."""
        b = 1 + self.momentum - self.lr * DECAY
        return (b + (b * b - 4 * self.momentum) ** 0.5) / 2


# Name: (pair of runs, whether theory says that they are the same).
CASES = {
    "full batch": (Case(sampled=False), True),
    "sampled, dropout": (Case(), True),
    "full batch, momentum 0.9": (Case(0.9, sampled=False), True),
    "sampled, dropout, momentum 0.9": (Case(0.9), True),
    "eps = 1e-5": (Case(eps=1e-5), False),
    "momentum 0.9, buffer starts at 0": (Case(0.9, buffer=False), False),
    "exponent one too large": (Case(shift=1), False),
}


def cora() -> gd.Graph:
    """Cora with 64 random combinations of its features, in float64."""
    graph = gd.load("cora")
    x = graph.x.to_dense().double()
    rng = gd.Key(0).fold("projection").generator()
    return replace(graph, x=x @ torch.randn(x.shape[1], FEATURES, generator=rng).double())


def losses(graph: gd.Graph, case: Case, steps: int, *, grow: bool) -> list[float]:
    """Of every step: with weight decay, or (``grow``) with a growing learning rate in its place."""
    dropout = 0.5 if case.sampled else 0.0
    options = {"hidden": HIDDEN, "layers": 2, "norm": "batch", "head": "linear", "bias": False}
    model = gd.GCN(graph.num_features, graph.num_classes, dropout=dropout, **options).double()
    for norm in model.norms:
        norm.eps = case.eps
    fans = {"fanouts": (5, 5), "batch_size": BATCH, "seeds": "uniform"}
    sampler = gd.Neighbor(**fans) if case.sampled else gd.Full()
    plans = sampler.prepare(graph, model.propagation, model.num_hops)
    own = [model.get_parameter(name) for name in INVARIANT]
    rest = [p for name, p in model.named_parameters() if name not in INVARIANT]
    groups = [{"params": own, "weight_decay": 0.0 if grow else DECAY}, {"params": rest}]
    optimizer = torch.optim.SGD(groups, lr=case.lr, momentum=case.momentum)
    z = case.root
    if grow and case.momentum and case.buffer:
        for p in own:
            optimizer.state[p]["momentum_buffer"] = p.detach() * ((z - 1) / (case.lr * z))
    found: list[float] = []

    def rate(step: int) -> float:
        return case.lr * z ** (-2 * step - 1 - case.shift) if grow else case.lr

    optimizer.param_groups[0]["lr"] = rate(0)
    with gd.Loader(plans, graph, epochs=steps, workers=0) as loader:
        for step in islice(gd.train(model, loader, optimizer, hidden=False), steps):
            found.append(float(step.loss))
            optimizer.param_groups[0]["lr"] = rate(step.index + 1)
    return found


def compare(graph: gd.Graph, case: Case, steps: int) -> dict:
    """Losses of both runs, and how far they are apart, relative."""
    decayed, grown = (losses(graph, case, steps, grow=g) for g in (False, True))
    apart = [abs(a - b) / abs(a) for a, b in zip(decayed, grown)]
    growth = case.root ** (-2 * steps)
    return {"losses": decayed, "apart": apart, "largest": max(apart), "rate_grew_by": growth}


def draw(path: Path, results: dict) -> None:
    """How far apart the losses are, by step."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), constrained_layout=True)
    for name, row in results.items():
        axes.plot([max(v, 1e-17) for v in row["apart"]], label=name, lw=1)
    axes.axhline(EXACT, color="k", lw=0.5, ls=":")
    axes.set(xlabel="step", ylabel="relative difference of the losses", yscale="log")
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--tiny", action="store_true", help="a few steps, to see that it runs")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    torch.set_num_threads(1)
    graph, results, wrong = cora(), {}, []
    for name, (case, same) in CASES.items():
        row = results[name] = compare(graph, case, 5 if args.tiny else args.steps)
        print(
            f"{name}: {row['largest']:.2e}, the rate grew by {row['rate_grew_by']:.3g}", flush=True
        )
        if row["largest"] > EXACT if same else row["largest"] < SEEN:
            wrong.append(name)
    args.out.mkdir(parents=True, exist_ok=True)
    short = {n: {k: _rounded(v) for k, v in row.items()} for n, row in results.items()}
    (args.out / "results.json").write_text(json.dumps(short, indent=1) + "\n")
    draw(args.out / "difference.png", results)
    if wrong and not args.tiny:
        raise SystemExit("contradicted by measurement: " + ", ".join(wrong))


def _rounded(value):
    if isinstance(value, list):
        return [_rounded(v) for v in value[:: max(1, len(value) // 50)]]
    return float(f"{value:.3g}")


if __name__ == "__main__":
    main()
