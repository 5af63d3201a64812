"""Why does a deep GCN not learn on Cora: smooth states, or nothing that flows back? See README.md.

python experiments/oversmoothing/run.py [--seeds 3] [--epochs 100] [--tiny] [--out FOLDER]
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch

import graphdyn as gd
from graphdyn.schedule import At

DEPTHS = (2, 4, 8, 16)
MODELS: dict[str, dict[str, Any]] = {
    "plain": {"name": "gcn"},
    "residual": {"name": "gcn", "skip": "identity"},
    "gcnii": {"name": "gcnii"},
}
SHARED = {"hidden": 64, "dropout": 0.5, "head": "linear"}
LOOKS = (0, 1, 2, 5, 10, 20, 50, 100)
QUANTITIES = {
    "accuracy": "validation accuracy",
    "sym": "Dirichlet energy of the last layer (sym)",
    "log_rank": "log effective rank of the last layer",
    "sym_grad": "energy of dL/dH of the first layer",
    "flow": "|dL/dH|, first layer over last",
    "dead": "share of dead units, all layers",
}


def train(options: dict[str, Any], depth: int, graph: gd.Graph, seed: int, epochs: int) -> dict:
    """One run on the whole graph.

    Returns:
        Readings by moment: epoch, then :data:`QUANTITIES`; the test accuracy at the best validation accuracy.
    """
    own = {k: v for k, v in options.items() if k != "name"}
    size = (graph.num_features, graph.num_classes)
    model = gd.build(options["name"], *size, layers=depth, seed=seed, **SHARED, **own)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
    plans, memory = gd.method(sampler="full").prepare(model, graph)
    looks = At(k for k in LOOKS if k <= epochs)
    problem = gd.NodeProblem(model, graph, plans, memory=memory)
    instruments = [gd.Smoothness(every=looks), gd.Units(every=looks)]
    loader = gd.Loader(plans, graph, key=gd.Key(seed), epochs=epochs, workers=0)
    start = gd.evaluate(model, graph).metric
    curve, best = {0: start["valid"]}, (start["valid"], start["test"])
    with gd.Recorder(model, optimizer, instruments, problem=problem, seed=seed) as recorder:
        recorder.settle()  # a look at the initial weights
        flow = {0: state_norms(model, graph)}
        for step in gd.train(model, loader, optimizer, memory=memory):
            done = step.index + 1
            if done in looks.steps or done % 10 == 0:
                found = gd.evaluate(model, graph).metric
                best = max(best, (found["valid"], found["test"]))
            if done in looks.steps:
                curve[done], flow[done] = found["valid"], state_norms(model, graph)
    points = [
        {"epoch": k, "accuracy": curve[k], "flow": flow[k], **readings(recorder, k, depth)}
        for k in curve
    ]
    return {"seed": seed, "test": best[1], "valid": best[0], "points": points}


def state_norms(model: Any, graph: gd.Graph) -> float | None:
    """|dL/dH| of the first layer over that of the last, without dropout; ``None``: nothing flows."""
    model.eval()
    batch = gd.full_batch(graph, model.propagation)
    output = model(batch)
    loss = gd.node_loss(output.logits, batch)
    grads = torch.autograd.grad(loss, (output.hidden[0], output.hidden[-1]))
    model.train()
    first, last = (float(g.double().norm()) for g in grads)
    return first / last if last > 0 else None


def readings(recorder: Any, step: int, depth: int) -> dict[str, float | None]:
    """What the instruments said at a moment; ``None`` where there was nothing to say."""
    rows = {
        (row.name, row.group): float(row.value)
        for clock, row in recorder.sink.rows
        if clock.step == step and hasattr(row, "value")
    }
    last, first = f"layer {depth}", "layer 1"
    dead = [v for (name, _), v in rows.items() if name == "units.dead"]
    return {
        "sym": rows.get(("smoothness.sym", last)),
        "log_rank": rows.get(("smoothness.log_rank", last)),
        "sym_grad": rows.get(("smoothness.sym_grad", first)),
        "dead": statistics.fmean(dead) if dead else None,
    }


def mean(values: list[float | None]) -> float | None:
    """Over seeds; ``None`` where one of them has nothing to say."""
    known = [v for v in values if v is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


def at(runs: list[dict], epoch: int, what: str) -> float | None:
    """Mean over seeds of a quantity at a moment."""
    return mean([next(p for p in r["points"] if p["epoch"] == epoch)[what] for r in runs])


def table(results: dict[str, dict[str, list[dict]]], end: int) -> str:
    """Markdown: by model and depth, before training and after it."""
    head = "| model | layers | test accuracy, % | sym, start | sym, end | log rank, start | end "
    lines = [head + "| flow, start | end | dead, start | end |", "|---" * 11 + "|"]
    for name, depths in results.items():
        for depth, runs in depths.items():
            scores = [100 * r["test"] for r in runs]
            spread = f" ± {statistics.stdev(scores):.1f}" if len(scores) > 1 else ""
            cells = [name, depth, f"{statistics.fmean(scores):.1f}{spread}"]
            for what, form in (
                ("sym", ".3f"),
                ("log_rank", ".2f"),
                ("flow", ".1e"),
                ("dead", ".2f"),
            ):
                for epoch in (0, end):
                    value = at(runs, epoch, what)
                    cells.append("–" if value is None else format(value, form))
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def ranked(pairs: list[tuple[float, float]]) -> float:
    """Spearman's correlation."""
    columns = [torch.tensor(c).argsort().argsort().double() for c in zip(*pairs)]
    return float(torch.corrcoef(torch.stack(columns))[0, 1])


def checks(results: dict[str, dict[str, list[dict]]], end: int) -> list[tuple[str, str, bool]]:
    """What was predicted, what was found, and whether it lies in the band; see README.md."""

    def test(name: str, depth: int) -> float:
        return 100 * statistics.fmean(r["test"] for r in results[name][str(depth)])

    def value(name: str, depth: int, epoch: int, what: str) -> float:
        found = at(results[name][str(depth)], epoch, what)
        return float("nan") if found is None else found

    drop = test("plain", 2) - test("plain", 16)
    kept = min(test(n, 16) - max(test(n, d) for d in DEPTHS) for n in ("residual", "gcnii"))
    smooth = value("plain", 16, 0, "sym") / value("plain", 2, 0, "sym")
    rank = value("plain", 2, 0, "log_rank") - value("plain", 16, 0, "log_rank")
    flow = {name: value(name, 16, 0, "flow") for name in MODELS}
    dead = {name: value(name, 16, end, "dead") for name in MODELS}
    every = [(n, d) for n in MODELS for d in DEPTHS]
    energy, ranks = (
        ranked([(value(n, d, end, what), test(n, d)) for n, d in every])
        for what in ("sym", "log_rank")
    )
    return [
        ("1a plain: accuracy at 2 less that at 16, at least 20 points", f"{drop:.1f}", drop >= 20),
        ("1b residual, gcnii: 16 within 5 points of their best depth", f"{kept:.1f}", kept >= -5),
        ("2a plain, start: sym at 16 over sym at 2, below 1/3", f"{smooth:.3f}", smooth < 1 / 3),
        ("2b plain, start: log rank lost from 2 to 16, above 1", f"{rank:.2f}", rank > 1),
        ("3a plain, start: flow at 16 below 1e-3", f"{flow['plain']:.1e}", flow["plain"] < 1e-3),
        ("3b residual, start: flow at 16 above 0.1", f"{flow['residual']:.2f}", flow["residual"] > 0.1),
        ("3c gcnii, start: flow at 16 below 0.1", f"{flow['gcnii']:.1e}", flow["gcnii"] < 0.1),
        ("4 dead units at 16, end: plain above 0.3, others below", str({k: round(v, 2) for k, v in dead.items()}),
         dead["plain"] > 0.3 > max(dead["residual"], dead["gcnii"])),
        ("5a rank correlation of sym at the end with accuracy, below 0.5", f"{energy:.2f}", energy < 0.5),
        ("5b rank correlation of log rank at the end with accuracy, above 0.7", f"{ranks:.2f}", ranks > 0.7),
    ]  # fmt: skip


def draw(results: dict[str, dict[str, list[dict]]], path: Path) -> None:
    """One panel a quantity, over epochs; one colour a model, thicker with depth."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(15, 8), layout="constrained")
    for panel, (what, title) in zip(axes.flat, QUANTITIES.items()):
        for colour, (name, depths) in enumerate(results.items()):
            for shade, (depth, runs) in enumerate(depths.items()):
                epochs = [p["epoch"] for p in runs[0]["points"]]
                pairs = [(k, v) for k in epochs if (v := at(runs, k, what)) is not None]
                if not pairs:
                    continue
                share = (shade + 1) / len(depths)
                style = {"color": f"C{colour}", "alpha": 0.3 + 0.7 * share, "lw": 0.7 + 2 * share}
                panel.plot(*zip(*pairs), label=f"{name}, {depth}", **style)
        panel.set(title=title, xlabel="epoch", xscale="symlog")
        if what in ("sym", "sym_grad", "flow"):
            panel.set_yscale("log")
    axes[0, 0].legend(fontsize=7, ncols=3)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def main() -> None:
    """Train, write results.json and curves.png, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--tiny", action="store_true", help="two depths, few epochs")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    torch.set_num_threads(1)
    seeds, epochs, depths = args.seeds, args.epochs, DEPTHS
    if args.tiny:
        seeds, epochs, depths = 1, 5, (2, 4)
    graph = gd.row_normalize(gd.load("cora"))
    results: dict[str, dict[str, list[dict]]] = {}
    for name, options in MODELS.items():
        for depth in depths:
            runs = [train(options, depth, graph, seed, epochs) for seed in range(seeds)]
            results.setdefault(name, {})[str(depth)] = runs
            print(
                f"{name}, {depth} layers: test {100 * statistics.fmean(r['test'] for r in runs):.1f} %",
                flush=True,
            )
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "results.json").write_text(json.dumps(results, indent=1))
    draw(results, args.out / "curves.png")
    end = max(p["epoch"] for p in results["plain"][str(depths[0])][0]["points"])
    print(table(results, end))
    if not args.tiny:
        for what, found, passed in checks(results, end):
            print(f"{'pass' if passed else 'FAIL'}  {what}: {found}")


if __name__ == "__main__":
    main()
