"""What does a 3-layer GCN with batch norm reach on ogbn-arxiv-tape, full batch? See README.md.

python experiments/arxiv_full_batch/run.py [--tiny] [--seeds 10] [--epochs 60] [--out runs/arxiv_full_batch]
"""

import argparse
from dataclasses import replace
from pathlib import Path

from graphdyn import Config, run
from graphdyn.report.figures import draw_curves

GCN = Config(
    dataset="ogbn-arxiv-tape",
    model="gcn",
    norm="batch",
    hidden=256,
    layers=3,
    dropout=0.5,
    lr=0.01,
    weight_decay=0.0,
    evaluate_every=2,
    threads=1,
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("runs/arxiv_full_batch"))
    parser.add_argument("--tiny", action="store_true", help="1 seed, 2 epochs: does it run?")
    options = parser.parse_args()
    config = replace(GCN, seeds=options.seeds, epochs=options.epochs, out=options.out)
    if options.tiny:
        config = replace(config, seeds=1, epochs=2)
    summary = run(config)
    for part in ("test", "validation"):
        row = summary[part]
        std = 0.0 if row["std"] is None else row["std"]
        print(f"{part:10} {100 * row['mean']:.2f} ± {100 * std:.2f} over {row['n']} seed(s)")
    print(draw_curves([config.folder]))


if __name__ == "__main__":
    main()
