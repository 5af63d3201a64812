"""What does the protocol do to the figure of one and the same network? See README.md.

python experiments/protocol/run.py [--seeds 10] [--tiny] [--out runs/protocol] [--write docs/protocol.md]
"""

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from graphdyn import Config, run

GCN = Config(
    features="row",
    model="gcn",
    hidden=16,
    layers=2,
    dropout=0.5,
    input_dropout=0.5,
    lr=0.01,
    weight_decay=0.0,
    weight_decay_for={"first": 5e-4},
    epochs=200,
    threads=1,
)
DATASETS = ("cora", "citeseer")
SPLITS = {
    "public": "public: 20 a class, 500, 1000",
    "random-20x500x1000": "random: 20 a class, 500, 1000",
    "random-10x500x1000": "random: 10 a class, 500, 1000",
    "geom-gcn": "geom-gcn, its ten files",
    "random-0.6-0.2-0.2": "random: 60 %, 20 %, 20 %",
}
FIXED = "random-20x500x1000-seed0"
MARKS = ("<!-- figures: begin -->", "<!-- figures: end -->")


def best(values: np.ndarray) -> int:
    """The first of the best."""
    return int(np.argmax(values))


def last_best(values: np.ndarray) -> int:
    """The last of the best."""
    return len(values) - 1 - int(np.argmax(values[::-1]))


def stopped(values: np.ndarray, patience: int) -> int:
    """The first of the best before so many evaluations in a row are no better."""
    top = 0
    for epoch, value in enumerate(values):
        if value > values[top]:
            top = epoch
        if epoch - top >= patience:
            break
    return top


# name: from a seed's curves (valid, loss, test by epoch) to the epoch whose test accuracy is told
RULES = {
    "best validation accuracy, first of equals": lambda c: best(c["valid"]),
    "best validation accuracy, last of equals": lambda c: last_best(c["valid"]),
    "lowest validation loss": lambda c: best(-c["loss"]),
    "validation accuracy, patience 10": lambda c: stopped(c["valid"], 10),
    "validation loss, patience 10": lambda c: stopped(-c["loss"], 10),
    "last epoch": lambda c: len(c["test"]) - 1,
    "best test accuracy (looks at the test set)": lambda c: best(c["test"]),
}


def curves(config: Config) -> list[dict[str, np.ndarray]]:
    """Validation accuracy and loss and test accuracy of every epoch, seed by seed."""
    summary = run(config)
    table = pq.read_table(config.folder / "metrics.parquet").to_pandas()
    found = []
    for seed in summary["seeds"]:
        rows = table[table.seed == seed]

        def curve(name: str, group: str, rows=rows) -> np.ndarray:
            return rows[(rows.name == name) & (rows.group == group)].value.to_numpy()

        valid, test = curve("accuracy", "valid"), curve("accuracy", "test")
        found.append({"valid": valid, "loss": curve("loss", "valid"), "test": test})
    return found


def told(runs: list[dict[str, np.ndarray]], rule: str = next(iter(RULES))) -> list[float]:
    """The figure of every seed, in per cent, under a rule."""
    return [100 * float(c["test"][RULES[rule](c)]) for c in runs]


def spread(values: list[float]) -> dict:
    return {
        "mean": round(statistics.fmean(values), 2),
        "std": round(statistics.stdev(values), 2),
        "n": len(values),
        "values": [round(v, 1) for v in values],
    }


def ties(runs: list[dict[str, np.ndarray]]) -> dict:
    """How many epochs share the best validation accuracy, and how far the first is from the last."""
    counts = [int((c["valid"] == c["valid"].max()).sum()) for c in runs]
    apart = [last_best(c["valid"]) - best(c["valid"]) for c in runs]
    return {"epochs": statistics.fmean(counts), "apart": statistics.fmean(apart)}


def measure(dataset: str, seeds: int, epochs: int, out: Path) -> dict:
    """All figures of a data set."""
    config = replace(GCN, dataset=dataset, seeds=seeds, epochs=epochs)

    def runs(name: str, **changes) -> list[dict[str, np.ndarray]]:
        return curves(replace(config, out=out / dataset / name, **changes))

    splits = {split: runs(split, split=split) for split in SPLITS}
    public = splits["public"]
    by_split = [
        told(runs(f"split-{k}", split=f"random-20x500x1000-seed{k}", seeds=1))[0]
        for k in range(seeds)
    ]
    what = {
        "initialisation and dropout alone, public split": told(public),
        "initialisation and dropout alone, one random split": told(runs("fixed", split=FIXED)),
        "split alone": by_split,
        "both": told(splits["random-20x500x1000"]),
    }
    return {
        "splits": {name: spread(told(found)) for name, found in splits.items()},
        "rules": {rule: spread(told(public, rule)) for rule in RULES},
        "ties": {name: ties(found) for name, found in splits.items()},
        "seeds": {name: spread(values) for name, values in what.items()},
    }


def cell(part: dict) -> str:
    return f"{part['mean']:.2f} ± {part['std']:.2f}"


def table(head: str, names: dict[str, str], results: dict, section: str) -> list[str]:
    lines = [f"| {head} | " + " | ".join(results) + " |", "|---" * (1 + len(results)) + "|"]
    for name, label in names.items():
        cells = (cell(found[section][name]) for found in results.values())
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def tables(results: dict) -> str:
    """The figures in Markdown."""
    first = next(iter(results.values()))
    lines = table("split", SPLITS, results, "splits")
    lines += table("public split, picked by", {n: n for n in RULES}, results, "rules")
    lines += table("what a seed varies", {n: n for n in first["seeds"]}, results, "seeds")
    lines += [
        "| epochs that share the best validation accuracy (first to last, mean) | "
        + " | ".join(results)
        + " |"
    ]
    lines += ["|---" * (1 + len(results)) + "|"]
    for name, label in SPLITS.items():
        found = (r["ties"][name] for r in results.values())
        cells = (f"{t['epochs']:.1f} ({t['apart']:.0f} epochs apart)" for t in found)
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write(path: Path, text: str) -> None:
    """Replace what stands between the marks."""
    before, rest = path.read_text().split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    path.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("runs/protocol"))
    parser.add_argument("--tiny", action="store_true", help="2 seeds, 3 epochs: does it run?")
    parser.add_argument("--write", type=Path, help="a Markdown file with the marks of the tables")
    options = parser.parse_args()
    seeds, epochs = (2, 3) if options.tiny else (options.seeds, GCN.epochs)
    results = {d: measure(d, seeds, epochs, options.out) for d in DATASETS}
    (options.out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    text = tables(results)
    print(text)
    if options.write:
        write(options.write, text)


if __name__ == "__main__":
    main()
