"""Do GCN, GAT and GCNII reach their published accuracy on the public splits? See README.md.

python experiments/citation_accuracy/run.py [--only gcn-cora ...] [--tiny] [--out runs/citation]
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from graphdyn import Config, run

GCN = Config(
    features="row",
    split="public",
    model="gcn",
    hidden=16,
    layers=2,
    dropout=0.5,
    input_dropout=0.5,
    lr=0.01,
    weight_decay=0.0,
    weight_decay_for={"first": 5e-4},
    epochs=200,
    seeds=10,
)
GAT = Config(
    features="row",
    split="public",
    model="gat",
    hidden=64,
    model_options={"heads": 8, "out_heads": 1},
    activation="elu",
    dropout=0.6,
    input_dropout=0.6,
    edge_dropout=0.6,
    lr=0.005,
    weight_decay=5e-4,
    epochs=1000,
    patience=100,
    select="loss",
    seeds=10,
)
GCNII = Config(
    features="row",
    split="public",
    model="gcnii",
    hidden=64,
    layers=64,
    dropout=0.6,
    input_dropout=0.6,
    model_options={"alpha": 0.1, "theta": 0.5},
    lr=0.01,
    weight_decay=5e-4,
    weight_decay_for={"hidden": 0.01},
    epochs=1500,
    patience=100,
    select="loss",
    seeds=10,
)

# name: (configuration, lowest and highest mean that count as reproduced, in per cent)
CHECKS = {
    "gcn-cora": (replace(GCN, dataset="cora"), (81.0, 82.3)),
    "gcn-citeseer": (replace(GCN, dataset="citeseer"), (69.8, 71.5)),
    "gcn-pubmed": (replace(GCN, dataset="pubmed"), (78.5, 79.7)),
    "gat-cora": (replace(GAT, dataset="cora"), (82.3, 83.7)),
    "gcnii-cora": (replace(GCNII, dataset="cora"), (84.6, 85.7)),
}


def check(name: str, out: Path, tiny: bool) -> dict:
    config, (low, high) = CHECKS[name]
    if tiny:
        config = replace(config, seeds=2, epochs=3, layers=min(config.layers, 4))
    summary = run(replace(config, out=out / name))
    test, seconds = summary["test"], summary["seconds"]["total"]
    mean = 100 * test["mean"]
    row = {
        "test_mean": round(mean, 2),
        "test_std": round(100 * test["std"], 2),
        "n": test["n"],
        "values": [round(100 * v, 1) for v in test["values"]],
        "validation_mean": round(100 * summary["validation"]["mean"], 2),
        "band": [low, high],
        "inside": low <= mean <= high,
        "seconds": round(seconds, 1),
        "id": summary["id"],
    }
    verdict = "inside" if row["inside"] else "OUTSIDE"
    print(
        f"{name:14} {mean:6.2f} ± {row['test_std']:.2f}  band {low}-{high}  {verdict}  {seconds:.0f} s",
        flush=True,
    )
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", nargs="*", choices=sorted(CHECKS), default=list(CHECKS))
    parser.add_argument("--out", type=Path, default=Path("runs/citation_accuracy"))
    parser.add_argument("--tiny", action="store_true", help="2 seeds, 3 epochs: does it run?")
    options = parser.parse_args()
    rows = {name: check(name, options.out, options.tiny) for name in options.only}
    (options.out / "results.json").write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
