"""Which samplers are unbiased: for the aggregate of a layer, for the loss, for the gradient? See README.md.

python experiments/sampler_bias/run.py [--plans 1000] [--only labor ...] [--tiny] [--write docs/validity.md]
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch

import graphdyn as gd
from graphdyn.batch import Batch, Plan, full_batch
from graphdyn.loss import label_losses
from graphdyn.models.propagate import aggregate
from graphdyn.progress import progress
from graphdyn.samplers import build

ROUNDING = 1e-10  # squared, in float32: nothing smaller is called a bias
COLUMNS = 8  # random combinations of the features that stand for all of them in the aggregate
SEEDS = {"batch_size": 32}
FAN = SEEDS | {"fanouts": (5,)}
WIDE = SEEDS | {"nodes": (128,)}
PARTS = {"parts": 40, "parts_per_batch": 8}
# Name in the table: (sampler, options, what theory says of aggregate and loss).
SAMPLERS: dict[str, tuple[str, dict, str, str]] = {
    "full": ("full", {}, "exact", "exact"),
    "neighbor": ("neighbor", FAN, "yes", "yes"),
    "neighbor, with replacement": ("neighbor", FAN | {"replace": True}, "yes", "yes"),
    "neighbor, one draw for all layers": ("neighbor", FAN | {"reuse": True}, "yes", "yes"),
    "neighbor, hajek": ("neighbor", FAN | {"estimator": "hajek"}, "O(1/k)", "yes"),
    "neighbor, unit": ("neighbor", FAN | {"estimator": "unit"}, "no", "yes"),
    "neighbor, seeds uniform": ("neighbor", FAN | {"seeds": "uniform"}, "yes", "yes"),
    "neighbor, seeds Poisson by degree": (
        "neighbor",
        FAN | {"seeds": "poisson", "score": "degree"},
        "yes",
        "yes",
    ),
    "neighbor, seeds persistent": (
        "neighbor",
        FAN | {"seeds": "persistent", "tau": 10.0},
        "yes",
        "yes",
    ),
    "neighbor-weighted, Poisson": ("neighbor-weighted", FAN, "yes", "yes"),
    "neighbor-weighted, Des Raj": ("neighbor-weighted", FAN | {"design": "wor"}, "yes", "yes"),
    "labor-0": ("labor", FAN, "yes", "yes"),
    "labor-1": ("labor", FAN | {"rounds": 1}, "yes", "yes"),
    "labor-*": ("labor", FAN | {"rounds": -1}, "yes", "yes"),
    "labor-*, hajek": ("labor", FAN | {"rounds": -1, "estimator": "hajek"}, "O(1/k)", "yes"),
    "fastgcn": ("fastgcn", WIDE, "yes", "yes"),
    "ladies (published)": ("ladies", WIDE, "no", "yes"),
    "ladies, ht": ("ladies", WIDE | {"estimator": "ht"}, "yes", "yes"),
    "pladies": ("pladies", WIDE, "yes", "yes"),
    "layerwise-desraj": ("layerwise-desraj", WIDE, "yes", "yes"),
    "cluster": ("cluster", PARTS, "yes", "yes"),
    "cluster, published": ("cluster", PARTS | {"estimator": "published"}, "no", "no"),
    "node": ("node", {"batch_size": 512}, "yes", "yes"),
    "node, published": ("node", {"batch_size": 512, "estimator": "published"}, "no", "no"),
    "saint-node": ("saint-node", {"budget": 800}, "yes", "yes"),
    "saint-edge": ("saint-edge", {"budget": 500}, "yes", "yes"),
    "saint-walk": ("saint-walk", {"roots": 300, "length": 2}, "counted", "counted"),
    "shadow": ("shadow", SEEDS | {"fanout": 5}, "another model", "yes"),
    "ibmb": ("ibmb", SEEDS, "no", "yes"),
}
MARKS = ("<!-- sampler bias: begin -->", "<!-- sampler bias: end -->")


@dataclass
class Bias:
    """Squared length of a mean error, as a share of the truth's, without the noise in it.

    Over errors e_1..e_R, independent, the mean of <e_r, e_s> over pairs r != s is an unbiased estimate of
    |E e|^2 (a U-statistic). Its variance is 4 var(<e_r, E e>) / R + 2 E <e_r, e_s>^2 / (R (R - 1)) at most:
    the first term carries it where there is a bias, the second where there is none.
    """

    squared: float
    error: float
    spread: float

    @classmethod
    def of(cls, errors: torch.Tensor, size: float) -> "Bias":
        """From (R, n) errors, as a share of ``size`` = |truth|^2."""
        count = errors.shape[0]
        gram = errors @ errors.T
        own = gram.diagonal().clone()
        gram.fill_diagonal_(0)
        with_others = gram.sum(1) / (count - 1)
        of_pairs = 2 * gram.square().sum() / (count * (count - 1)) ** 2
        error = (4 * with_others.var() / count + of_pairs).sqrt()
        spread = own.mean() - with_others.mean()
        return cls(*(float(t) / size for t in (with_others.mean(), error, spread)))

    @property
    def found(self) -> bool:
        """Five standard errors, and more than rounding."""
        return self.squared > max(5 * self.error, ROUNDING)

    def __str__(self) -> str:
        """In per cent of the truth's length: a bias with its error, or what it is below (2 SE)."""
        if self.found:
            root = self.squared**0.5
            return f"{100 * root:.3g} ± {50 * self.error / root:.1g}"
        bound = max(self.squared + 2 * self.error, 0)
        return f"< {100 * bound**0.5:.2g}" if bound > ROUNDING else "0"

    def row(self) -> dict:
        return {"squared": self.squared, "se": self.error, "variance": self.spread}


class Truth:
    """A trained GCN on a graph, and everything exact about it."""

    def __init__(self, graph: gd.Graph, epochs: int):
        self.graph = graph
        self.model = gd.GCN(graph.num_features, graph.num_classes, hidden=16, dropout=0.0)
        batch = full_batch(graph, self.model.propagation)
        optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)
        for _ in islice(
            gd.train(self.model, gd.full_batches(batch, range(epochs)), optimizer), epochs
        ):
            pass
        logits = gd.predict(self.model, batch)
        self.losses = label_losses(logits, graph.y)
        self.loss = self.losses[graph.split.train].mean()
        self.batch, self.gradient = batch, self.gradient_of(batch)
        rng = gd.Key(0).fold("columns").generator()
        dense = graph.x if isinstance(graph.x, torch.Tensor) else graph.x.to_dense()
        self.x = dense @ torch.randn(graph.num_features, COLUMNS, generator=rng)
        self.z = aggregate(batch.block(0), self.x)

    def gradient_of(self, batch: Batch) -> torch.Tensor:
        """The gradient of the batch's loss, flat."""
        loss = gd.node_loss(self.model(batch, hidden=False).logits, batch)
        return torch.cat(
            [g.flatten() for g in torch.autograd.grad(loss, [*self.model.parameters()])]
        )

    def aggregate_error(self, plan: Plan) -> torch.Tensor:
        """(N F,) errors of the last layer's targets; 0 for nodes that are none."""
        block = plan.blocks[-1]
        source = torch.arange(self.graph.num_nodes) if block.node_id is None else block.node_id
        target = source[: block.num_dst]
        error = aggregate(block, self.x[source]) - self.z[target]
        return torch.zeros_like(self.z).index_add_(0, target, error).flatten()

    def gradient_error(self, plan: Plan) -> torch.Tensor:
        """What sampling edges does: against the exact gradient of the same seeds with the same weights."""
        y = self.graph.y[plan.seeds]
        exact = replace(self.batch, rows=plan.seeds, y=y, seed_weight=plan.seed_weight)
        x = self.graph.x if plan.node_id is None else self.graph.x.rows(plan.node_id)
        return self.gradient_of(plan.batch(x, y)) - self.gradient_of(exact)

    def loss_error(self, plan: Plan) -> torch.Tensor:
        """Of the weighted sum of exact losses: what the choice of seeds does alone."""
        return (plan.seed_weight * self.losses[plan.seeds]).sum() - self.loss


def measure(truth: Truth, name: str, count: int) -> dict:
    """Bias of aggregate, loss and gradient of one sampler over independent plans."""
    sampler, options, *_ = SAMPLERS[name]
    graph, model = truth.graph, truth.model
    plans = build(sampler, **options).prepare(graph, model.propagation, model.num_hops)
    errors: dict[str, list[torch.Tensor]] = {"aggregate": [], "loss": [], "gradient": []}
    nodes = edges = seen = 0
    hit = torch.zeros(graph.num_nodes)
    for plan in islice(independent(plans), count):
        ids = plan.blocks[-1].node_id
        target = slice(None) if ids is None else ids[: plan.blocks[-1].num_dst]
        hit[target] += 1 / count
        errors["aggregate"].append(truth.aggregate_error(plan))
        errors["loss"].append(truth.loss_error(plan).reshape(1))
        errors["gradient"].append(truth.gradient_error(plan))
        nodes, edges, seen = nodes + plan.num_nodes, edges + plan.num_edges, seen + 1
    size = {
        "aggregate": float((hit.unsqueeze(1) * truth.z).square().sum()),
        "loss": float(truth.loss**2),
        "gradient": float(truth.gradient.square().sum()),
    }
    bias = {k: Bias.of(torch.stack(v).double(), size[k]) for k, v in errors.items()}
    return {"bias": bias, "nodes": nodes / seen, "edges": edges / seen, "steps": plans.num_batches}


def independent(plans) -> Iterator[Plan]:
    """One plan from each of ever new runs, at a random step of the first epoch."""
    for seed in range(1 << 31):
        key = gd.Key(seed).fold("bias")
        step = int(key.fold("step").integers(torch.zeros(1, dtype=torch.int64), plans.num_batches))
        yield plans.plan(key.at(step=step))


def table(results: dict[str, dict]) -> str:
    """Markdown: theory beside measurement."""
    head = (
        "| sampler | aggregate unbiased? | measured bias, % | loss unbiased? | measured bias, % "
        "| gradient bias, % | gradient noise / signal | nodes | edges |"
    )
    lines = [head, "|---|---|---|---|---|---|---|---|---|"]
    for name, row in results.items():
        _, _, aggregate_, loss = SAMPLERS[name]
        b = row["bias"]
        noise = f"{b['gradient'].spread:.2g}"
        cells = (name, aggregate_, b["aggregate"], loss, b["loss"], b["gradient"], noise)
        lines.append(f"| {' | '.join(map(str, cells))} | {row['nodes']:.0f} | {row['edges']:.0f} |")
    return "\n".join(lines)


def contradictions(results: dict[str, dict]) -> list[str]:
    """Where a measurement disproves what theory says."""
    return [
        f"{name}: {what}"
        for name, row in results.items()
        for what, claim in zip(("aggregate", "loss"), SAMPLERS[name][2:])
        if claim in ("yes", "exact") and row["bias"][what].found
    ]


def write(path: Path, text: str) -> None:
    """Put the table between its marks."""
    before, rest = path.read_text().split(MARKS[0])
    _, after = rest.split(MARKS[1])
    path.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plans", type=int, default=1000)
    parser.add_argument("--only", nargs="*", choices=list(SAMPLERS), default=list(SAMPLERS))
    parser.add_argument("--tiny", action="store_true", help="a few plans, to see that it runs")
    parser.add_argument("--write", type=Path, help="a Markdown file with the marks of the table")
    parser.add_argument("--out", type=Path, default=Path("runs/sampler_bias"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    truth = Truth(gd.row_normalize(gd.load("cora")), 3 if args.tiny else 20)
    results = {}
    with progress("samplers", len(args.only), 0) as bar:
        for done, name in enumerate(args.only, 1):
            results[name] = measure(truth, name, 5 if args.tiny else args.plans)
            bar.update(done, name)
    text = table(results)
    print(text)
    args.out.mkdir(parents=True, exist_ok=True)
    plain = {
        n: r | {"bias": {k: b.row() for k, b in r["bias"].items()}} for n, r in results.items()
    }
    (args.out / "results.json").write_text(json.dumps(plain, indent=2) + "\n")
    if args.write:
        write(args.write, text)
    if wrong := contradictions(results):
        raise SystemExit("contradicted by measurement: " + "; ".join(wrong))


if __name__ == "__main__":
    main()
