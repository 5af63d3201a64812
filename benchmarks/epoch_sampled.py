"""One sampled training epoch on ogbn-arxiv: graphdyn beside PyG, taken in turns.

    python benchmarks/epoch_sampled.py --folder FOLDER [--pyg-python P] [--rounds 3] [--threads 2]

Three layers of GraphSAGE, hidden 256, batch norm, ReLU, dropout 0.5, Adam; 200 dense features; batches of 1024
seeds, up to 15, 10 and 5 neighbours. graphdyn's seconds hold everything: sampling and gathering by two threads, forward,
backward, step. PyG as its documentation shows likewise; PyG at its best is fed with batches drawn and
gathered beforehand, and only forward, backward and step count. A contestant is a process of its own.
"""

import argparse
import itertools
import json
import statistics
import sys
import time
from pathlib import Path

import torch
from common import RESULTS, save
from graphs import read
from peers import protocol
from sampling import PEERS, make_graphs, turn

from graphdyn import SAGE, Key, Loader, Neighbor, train
from graphdyn.machine import reuse_memory

# Name -> arguments of peers/pyg_epoch.py; and how many times faster graphdyn wants to be than the best of a kind.
PYG = {
    "documented, 0 workers": ["--mode", "documented", "--workers", 0],
    "documented, 2 workers": ["--mode", "documented", "--workers", 2],
    "best, trim, CSR": ["--mode", "best", "--shape", "trim", "--adj", "csr-mean"],
    "best, bipartite, CSR": ["--mode", "best", "--shape", "bipartite", "--adj", "csr-mean"],
    "best, bipartite, CSR of weights": [
        "--mode",
        "best",
        "--shape",
        "bipartite",
        "--adj",
        "csr-sum",
    ],
}
# What graphdyn.machine.reuse_memory does for graphdyn, PyG at its best gets too.
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str((1 << 31) - 1),
}
GOALS = {"documented": 7.0, "best, trim": 3.5}


def contestant(options: argparse.Namespace) -> None:
    """What a process of graphdyn does at its turn."""
    torch.set_num_threads(options.threads)
    reuse_memory()
    graph = read(options.folder)
    sizes = {"hidden": 256, "layers": 3, "norm": "batch", "dropout": 0.5}
    model = SAGE(graph.num_features, graph.num_classes, **sizes)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    recipe = Neighbor(fanouts=tuple(options.fanouts), batch_size=options.batch_size)
    plans = recipe.prepare(graph, model.propagation, model.num_hops)
    batches = options.batches or plans.num_batches
    epochs = itertools.count()

    def run(count):
        start, epoch = time.perf_counter(), next(epochs)
        epoch = range(epoch, epoch + 1)
        with Loader(plans, graph, key=Key(0), epochs=epoch, workers=options.threads) as loader:
            for _ in train(model, itertools.islice(loader, count), optimizer, hidden=False):
                pass
        return time.perf_counter() - start, loader.seconds

    run(protocol.WARMUP)
    done = [run(batches) for _ in range(options.rounds)]
    result = {
        "epoch_seconds": [seconds for seconds, _ in done],
        "loader_seconds": [parts for _, parts in done],
        "batches": batches,
    }
    protocol.answer(result, options, "graphdyn", "numba", "numpy")


def commands(options: argparse.Namespace) -> dict[str, list]:
    """How each contestant is started; without an interpreter for PyG there is only one."""
    folder = options.folder / "arxiv"
    sizes = ["--threads", options.threads, "--batches", options.batches]
    sizes += ["--batch-size", options.batch_size]
    entries = {"graphdyn": [sys.executable, __file__, "--contestant", folder, *sizes]}
    if options.pyg_python:
        drawn = options.folder / f"arxiv-drawn-{options.batch_size}"
        for name, words in PYG.items():
            script = [options.pyg_python, PEERS / "pyg_epoch.py", folder, *words, *sizes]
            entries[name] = script + (["--drawn", drawn] if name.startswith("best") else [])
        if not drawn.exists():
            draw = [options.pyg_python, PEERS / "pyg_batches.py", folder, drawn]
            print(turn([str(word) for word in [*draw, "--batch-size", options.batch_size]]))
    return entries


def measure(options: argparse.Namespace) -> dict:
    entries = commands(options)
    turns = {name: [] for name in entries}
    for _, name in itertools.product(range(options.rounds), entries):
        words = [str(word) for word in entries[name]]
        settings = KEEP_MEMORY if name.startswith("best") else {}
        turns[name].append(turn(words, options.threads, **settings))
    return {name: summary(ones) for name, ones in turns.items()}


def summary(turns: list[dict]) -> dict:
    failed = [one for one in turns if "failed" in one]
    if failed:
        return failed[0]
    seconds = statistics.median(s for one in turns for s in one["epoch_seconds"])
    return {"seconds": seconds, "turns": turns}


def report(rows: dict[str, dict]) -> None:
    base = rows["graphdyn"].get("seconds")
    for name, row in rows.items():
        if "seconds" not in row:
            print(f"{name:32} {row['failed']}")
            continue
        row["ratio"] = row["seconds"] / base if base else None
        print(f"{name:32} {row['seconds']:8.2f} s {row['ratio'] or float('nan'):8.2f} x")
    for kind, goal in GOALS.items():
        ratios = [
            row["ratio"] for name, row in rows.items() if name.startswith(kind) and row.get("ratio")
        ]
        told = f"{min(ratios):.2f} x (at least {goal:g})" if ratios else "absent"
        print(f"PyG, {kind:27} {told}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if "--contestant" in arguments:
        parser = protocol.parser(__doc__)
        parser.add_argument("--contestant", action="store_true")
        contestant(parser.parse_args(arguments))
        return 0
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--pyg-python")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batches", type=int, default=0, help="of an epoch; 0 is all")
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON")
    options = parser.parse_args(arguments)
    make_graphs(options.folder, ["arxiv"])
    results = measure(options)
    report(results)
    print(f"written to {save('epoch_sampled', results, options.out)}")
    return int('"failed"' in json.dumps(results))


if __name__ == "__main__":
    sys.exit(main())
