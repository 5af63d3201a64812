"""Do histories train 8 and 16 layers on ogbn-arxiv-tape in bounded memory, as well as the full batch? See README.md.

python experiments/deep_histories/run.py [--seeds 0 1] [--methods gas ...] [--layers 8 16] [--budget 40]
python experiments/deep_histories/run.py --memory
python experiments/deep_histories/run.py --report
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from report import report

from graphdyn.journal import read_table

HERE = Path(__file__).parent
MODELS = {
    "gcnii": ["--model", "gcnii"],
    "residual gcn": ["--model", "gcn", "--skip", "identity", "--head", "linear"],
}
PARTS = ["--sampler-options", "parts", "80", "parts_per_batch", "8"]
CHUNK = ["--evaluate-chunk", "20000"]
# Without these, filling the tables exactly and evaluating would pass the whole graph at once.
BOUNDED = ["--memory-options", "start", "zero", "dtype", "bfloat16", *CHUNK]
METHODS: dict[str, list[str]] = {
    "full batch": ["--sampler", "full"],
    "gas": ["--preset", "gas", *PARTS, *BOUNDED],
    "lmc": ["--preset", "lmc", *PARTS, *BOUNDED],
    "cluster, no memory": ["--sampler", "cluster", *PARTS, *CHUNK],
}
BASE = ["--norm", "layer", "--dropout", "0.2", "--lr", "0.005", "--weight-decay", "0",
        "--threads", "1", "--workers", "0", "--seeds", "1"]  # fmt: skip
# Of training a run, by layers: seconds of the processor, for other work may share the machine.
SECONDS = {8: 40.0, 16: 50.0}
LOOKS = 4  # evaluations a run, whatever the method, so that all choose among as many
TIMED = 2  # epochs of the run that says how long one takes: the fastest after the first
NEVER = "1e9"
RETURNED = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}  # a variable of glibc
# As a run is by default; what is in use; the same with checkpoints, which an epoch of one step has none of.
KINDS = ({}, {"returned": True}, {"returned": True, "checkpoint": True})
# The command with a clock that stands still while others compute; there is one thread.
COMMAND = """
import sys, time
time.perf_counter = time.process_time
from graphdyn.cli import main
sys.exit(main())
"""
Row = dict[str, Any]


class Rows:
    """Rows in a file, one a line; what is there is not run again."""

    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.exists() else []
        self.rows: list[Row] = [json.loads(line) for line in lines]

    def find(self, **key: Any) -> Row | None:
        """The row with these values."""
        return next((r for r in self.rows if {k: r.get(k) for k in key} == key), None)

    def add(self, row: Row) -> Row:
        """Write a row at once."""
        self.rows.append(row)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        return row


def train(words: list[str], *, checkpoint: bool = False, returned: bool = False) -> Row:
    """One run in a process of its own, so that the peak and the clock are its own.

    Args:
        words: Of the command.
        checkpoint: Write one after every step, or none.
        returned: Freed blocks go back to the system at once, so that the peak is of what is in use.
    """
    environment = {**os.environ, **(RETURNED if returned else {})}
    with tempfile.TemporaryDirectory() as folder:
        more = ["--out", folder, "--checkpoint-seconds", "0" if checkpoint else NEVER]
        command = [sys.executable, "-c", COMMAND, "train", *BASE, *words, *more]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
        return measured(Path(folder))


def measured(folder: Path) -> Row:
    """What the tables need of a finished run; seconds of training begin with its preparation."""
    summary = json.loads((folder / "summary.json").read_text())
    seconds = {name: round(value, 2) for name, value in summary["seconds"].items()}
    rows = read_table(folder).to_pylist()
    ends = [r["seconds"] for r in rows if r["name"] == "lr"]
    looks: dict[int, Row] = {}
    for r in rows:
        if r["name"] == "accuracy":
            look = looks.setdefault(
                r["epoch"], {"seconds": round(seconds["precompute"] + r["seconds"], 2)}
            )
            look[r["group"]] = r["value"]
    return {
        "test": summary["test"]["mean"],
        "valid": summary["validation"]["mean"],
        "epochs": summary["epochs"][0],
        "steps": summary["steps"][0],
        "seconds": round(sum(seconds[k] for k in ("precompute", "wait", "compute", "memory")), 2),
        "epoch_seconds": min((b - a for a, b in pairwise(ends)), default=0.0),
        "precompute": seconds["precompute"],
        "evaluate": seconds["evaluate"],
        "peak": summary["peak_memory_bytes"],
        "curve": list(looks.values()),
    }


def words(key: Row, options: argparse.Namespace, hidden: int, epochs: int, every: int) -> list[str]:
    """The command line of a cell of the grid."""
    sizes = {"layers": key["layers"], "hidden": hidden, "epochs": epochs, "evaluate-every": every}
    numbers = [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
    data = ["--dataset", options.dataset, "--first-seed", str(key.get("seed", 0))]
    return [*MODELS[key["model"]], *METHODS[key["method"]], *data, *numbers]


def compare(rows: Rows, key: Row, options: argparse.Namespace) -> None:
    """A run of as many epochs as fit the budget by a timing run, the same number for all seeds."""
    budget = options.budget or SECONDS.get(key["layers"], 10.0)
    key = {"kind": "train", **key, "budget": budget}
    if rows.find(**key):
        return
    cell = {**key, "kind": "timing", "seed": 0, "budget": None}
    timing = rows.find(**cell) or rows.add(
        {**cell, **train(words(cell, options, 64, TIMED, TIMED))}
    )
    left = (budget - timing["precompute"]) / timing["epoch_seconds"]
    epochs = max(1, round(left))
    told(rows.add({**key, **train(words(key, options, 64, epochs, math.ceil(epochs / LOOKS)))}))


def measure_memory(rows: Rows, key: Row, options: argparse.Namespace) -> None:
    """One epoch at each width; an epoch of the full batch is a step."""
    for hidden in options.hidden:
        for kind in KINDS[:2] if key["method"] == "full batch" else KINDS:
            cell = {
                "kind": "memory",
                **key,
                "hidden": hidden,
                "returned": False,
                "checkpoint": False,
            }
            cell |= kind
            if not rows.find(**cell):
                told(rows.add({**cell, **train(words(cell, options, hidden, 1, 1), **kind)}))


def told(row: Row) -> None:
    """A line about a run that has ended."""
    names = " ".join(str(row[k]) for k in ("model", "layers", "method"))
    numbers = f"{100 * row['test']:.2f} %, {row['seconds']:.0f} s, {row['peak'] / 2**30:.2f} GiB"
    print(f"{row['kind']}: {names} seed {row.get('seed')}: {numbers}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="*", choices=list(METHODS), default=list(METHODS)[:3])
    parser.add_argument("--models", nargs="*", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--layers", nargs="*", type=int, default=list(SECONDS))
    parser.add_argument("--seeds", nargs="*", type=int, default=list(range(5)))
    parser.add_argument("--budget", type=float, help=f"seconds of training; by layers: {SECONDS}")
    parser.add_argument("--hidden", nargs="*", type=int, default=[64, 256], help="for --memory")
    parser.add_argument("--memory", action="store_true", help="one epoch, peaks alone")
    parser.add_argument("--report", action="store_true", help="tables and picture, nothing is run")
    parser.add_argument("--dataset", default="ogbn-arxiv-tape")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of results.jsonl")
    parser.add_argument("--tiny", action="store_true", help="Cora, a second: does it run?")
    options = parser.parse_args()
    if options.tiny:
        options.dataset, options.seeds, options.layers, options.budget = "cora", [0], [3], 1.0
        options.methods, options.models = ["full batch", "gas"], ["gcnii"]
    rows = Rows(options.out / "results.jsonl")
    if options.report:
        report(rows.rows, options.out)
        return
    for seed in [0] if options.memory else options.seeds:
        for layers in options.layers:
            for model in options.models:
                for method in options.methods:
                    key = {"model": model, "layers": layers, "method": method}
                    if options.memory:
                        measure_memory(rows, key, options)
                    else:
                        compare(rows, {**key, "seed": seed}, options)


if __name__ == "__main__":
    main()
