"""Does training under each sampler reach the accuracy of the full batch on ogbn-arxiv-tape? See README.md.

python experiments/sampler_accuracy/run.py [--only labor ...] [--seeds 3] [--epochs 10] [--tiny] [--out FOLDER]
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from graphdyn import Config, run

GCN = Config(
    dataset="ogbn-arxiv-tape",
    model="gcn",
    norm="batch",
    hidden=256,
    layers=3,
    dropout=0.5,
    lr=0.005,
    schedule="CosineAnnealingLR",
    weight_decay=0.0,
    threads=1,
)
FULL_BATCH = 72.72  # per cent, 10 seeds: experiments/arxiv_full_batch
ALLOWED = 0.5  # points below it
FAN = {"batch_size": 1024, "fanouts": "10,10,5"}

# Name in the table: (sampler, its own flags, its options, epochs as a multiple of the others')
SAMPLERS: dict[str, tuple[str, dict, dict, float]] = {
    "neighbor": ("neighbor", FAN, {}, 1),
    "neighbor, hajek": ("neighbor", FAN, {"estimator": "hajek"}, 1),
    "neighbor-weighted": ("neighbor-weighted", FAN, {}, 1),
    "labor": ("labor", FAN, {}, 1),
    "fastgcn": ("fastgcn", {"batch_size": 1024}, {"nodes": "16384"}, 1),
    "ladies, ht": ("ladies", {"batch_size": 1024}, {"nodes": "8192", "estimator": "ht"}, 2),
    "ladies": ("ladies", {"batch_size": 1024}, {"nodes": "8192"}, 2),
    "pladies": ("pladies", {"batch_size": 1024}, {"nodes": "8192"}, 1),
    "layerwise-desraj": ("layerwise-desraj", {"batch_size": 1024}, {"nodes": "8192"}, 2),
    "cluster": ("cluster", {}, {"parts": 200, "parts_per_batch": 20}, 8),
    "node": ("node", {"batch_size": 42_336}, {}, 8),
    "node, published": ("node", {"batch_size": 42_336}, {"estimator": "published"}, 8),
    "saint-node": ("saint-node", {}, {"budget": 40_000}, 8),
    "saint-edge": ("saint-edge", {}, {"budget": 20_000}, 8),
    "saint-walk": ("saint-walk", {}, {"roots": 8000, "length": 3}, 8),
    "shadow": ("shadow", {"batch_size": 1024}, {"fanout": 5}, 1),
    "ibmb": ("ibmb", {"batch_size": 4096}, {}, 3),
}


def train(name: str, options: argparse.Namespace) -> dict:
    """One sampler: accuracy, and what it cost."""
    sampler, flags, own, factor = SAMPLERS[name]
    config = replace(GCN, sampler=sampler, sampler_options=own, **flags)
    epochs = 1 if options.tiny else round(options.epochs * factor)
    seeds = 1 if options.tiny else options.seeds
    folder = options.out / name.replace(", ", "-").replace(" ", "-")
    every = max(1, int(factor))  # short epochs: as many evaluations as the others have
    config = replace(config, epochs=epochs, seeds=seeds, evaluate_every=every)
    config = replace(config, schedule_options={"T_max": epochs})
    summary = run(replace(config, out=folder))
    return row(name, summary)


def row(name: str, summary: dict) -> dict:
    """What the table shows of a run, costs per seed."""
    test, seconds = summary["test"], summary["seconds"]
    trained = sum(seconds[k] for k in ("precompute", "wait", "transfer", "compute"))
    return {
        "sampler": name,
        "test": 100 * test["mean"],
        "std": None if test["std"] is None else 100 * test["std"],
        "validation": 100 * summary["validation"]["mean"],
        "seeds": test["n"],
        "epochs": max(summary["epochs"]),
        "steps": summary["steps"][0],
        "edges": summary["edges"][0] / 1e6,
        "seconds": trained / test["n"],
        "reached": 100 * test["mean"] >= FULL_BATCH - ALLOWED,
    }


def line(row: dict) -> str:
    """A row in Markdown."""
    std = "" if row["std"] is None else f" ± {row['std']:.2f}"
    cells = (
        row["sampler"],
        f"{row['test']:.2f}{std}",
        f"{row['validation']:.2f}",
        "yes" if row["reached"] else "**no**",
        row["epochs"],
        row["steps"],
        f"{row['edges']:.0f}",
        f"{row['seconds']:.0f}",
    )
    return f"| {' | '.join(map(str, cells))} |"


HEAD = (
    f"| sampler | test | validation | within {ALLOWED} of {FULL_BATCH}? | epochs | steps "
    "| edges touched, millions | seconds of training |\n|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", choices=list(SAMPLERS), default=list(SAMPLERS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path("runs/sampler_accuracy"))
    parser.add_argument("--tiny", action="store_true", help="1 seed, 1 epoch: does it run?")
    options = parser.parse_args()
    print(HEAD)
    rows = []
    for name in options.only:
        rows.append(train(name, options))
        print(line(rows[-1]), flush=True)
        (options.out / "results.json").write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
