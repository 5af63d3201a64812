"""Sampling and relabelling, without features: graphdyn beside its peers, taken in turns.

    python benchmarks/sampling.py --folder FOLDER [--graphbolt-python P] [--pyg-python P] [--rounds 5]

A contestant is a process of its own, started anew at every turn, so that each runs in the environment that it
needs and a noisy neighbour hits all alike. Peers without an interpreter (see peers/README.md) are told as
absent. FOLDER keeps the exported graphs (1 GB).
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from common import RESULTS, save
from graphs import GRAPHS, read
from peers import protocol

from graphdyn import Graph, Key, Loader, Propagation, samplers
from graphdyn.graph import Norm
from graphdyn.prefetch import Prefetch

PEERS = Path(__file__).parent / "peers"
FANOUTS = (15, 10, 5)

# (method, graph) -> how many times faster than a peer graphdyn wants to be; one thread
CASES = {
    ("neighbor", "power-law"): {"graphbolt": 4.5, "torch-sparse": 25.0},
    ("neighbor", "arxiv"): {"graphbolt": 3.0, "torch-sparse": None},
    ("labor", "power-law"): {"graphbolt": 6.0},
    ("labor", "arxiv"): {"graphbolt": 6.0},
}
PYG_LIB = "pyg-lib: no package for this torch; 3.7 to 4.9 M edges/s elsewhere on the large graph, not run here"


def ours(graph: Graph, method: str, fanouts, batch_size: int, workers: int, matrix: Norm):
    """Plans without end: made in this thread (0 workers) or by threads ahead of it."""
    recipe = samplers.build(method, fanouts=tuple(fanouts), batch_size=batch_size)
    plans = recipe.prepare(graph, Propagation(matrix, False), len(fanouts))
    return Prefetch(plans.plan, plans.keys(Key(0), range(10**6)), workers=workers, depth=4)


def contestant(options: argparse.Namespace) -> None:
    """What a process of graphdyn does at its turn: the peers' protocol."""
    torch.set_num_threads(1)
    o = options
    plans = ours(read(o.folder), o.method, o.fanouts, o.batch_size, o.workers, o.matrix)

    def sample(_):
        plan = next(plans)
        return protocol.Size(plan.num_edges, plan.num_nodes)

    result = protocol.time_batches(sample, options)
    plans.close()
    protocol.answer({"method": options.method} | result, options, "graphdyn", "numba", "numpy")


def command(name: str, method: str, graph: str, options: argparse.Namespace) -> list[str] | None:
    """How a contestant is started; ``None`` if it is absent."""
    folder = options.folder / graph
    words = {
        "graphbolt": [options.graphbolt_python, PEERS / "graphbolt_sampling.py", folder],
        "torch-sparse": [options.pyg_python, PEERS / "torch_sparse_sampling.py", folder],
    }.get(name, [sys.executable, __file__, "--contestant", folder])
    if words[0] is None:
        return None
    if name != "torch-sparse":
        words += ["--method", method]
    words += {
        "graphdyn, weights a*s": ["--matrix", "mean"],
        "graphdyn, 1 worker": ["--workers", 1],
        "graphdyn, 2 workers": ["--workers", 2],
    }.get(name, [])
    sizes = ["--batches", options.batches, "--batch-size", options.batch_size]
    return [str(word) for word in [*words, "--threads", 1, *sizes]]


def turn(words: list[str], threads: int = 1, **settings: str) -> dict:
    """Run a contestant once: its last line, or why it has none. Settings are environment variables."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "DGLBACKEND": "pytorch"} | settings
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def by_turns(entries: dict[str, list[str] | None], rounds: int) -> dict[str, dict]:
    """Every contestant once a round; per contestant all turns and the median of the rates."""
    turns: dict[str, list[dict]] = {name: [] for name, words in entries.items() if words}
    for _, name in itertools.product(range(rounds), turns):
        if not any("failed" in one for one in turns[name]):
            turns[name].append(turn(entries[name] or []))
    return {name: summary(turns.get(name, [])) for name in entries}


def summary(turns: list[dict]) -> dict:
    if not turns:
        return {"absent": True}
    failed = [one for one in turns if "failed" in one]
    if failed:
        return failed[0]
    keys = ("edges_per_second", "edges_per_cpu_second", "seconds_per_batch")
    medians = {key: statistics.median(one[key] for one in turns) for key in keys}
    return medians | {"turns": turns}


def compare(options: argparse.Namespace) -> dict:
    """The cases against peers, one thread each."""
    results = {}
    for (method, graph), goals in CASES.items():
        case = f"{method}, {graph}"
        if options.cases and case not in options.cases:
            continue
        names = ["graphdyn", "graphdyn, weights a*s", *goals]
        entries = {name: command(name, method, graph, options) for name in names}
        results[case] = by_turns(entries, options.rounds)
        report(case, results[case], goals)
    print(PYG_LIB)
    return results


def report(case: str, rows: dict[str, dict], goals: dict) -> None:
    base = rows["graphdyn"].get("edges_per_second")
    for name, row in rows.items():
        line = f"{case:22} {name:22}"
        if "edges_per_second" not in row:
            print(f"{line} {row.get('failed', 'absent')}", flush=True)
            continue
        rate, seconds = row["edges_per_second"], row["seconds_per_batch"]
        line += f" {rate / 1e6:8.2f} M edges/s {1e3 * seconds:9.2f} ms a batch"
        if base and name in goals:
            row["ratio"] = base / rate
            row["cpu_ratio"] = (
                rows["graphdyn"]["edges_per_cpu_second"] / row["edges_per_cpu_second"]
            )
            goal = f" (at least {goals[name]:g})" if goals[name] else ""
            line += f" {base / rate:8.2f} x{goal}"
        print(line, flush=True)


def workers(options: argparse.Namespace) -> dict:
    """Edges a second of two workers over one."""
    results = {}
    for graph in ("power-law", "arxiv"):
        names = ("graphdyn, 1 worker", "graphdyn, 2 workers")
        entries = {name: command(name, "neighbor", graph, options) for name in names}
        rows = by_turns(entries, options.rounds)
        one, two = (row.get("edges_per_second") for row in rows.values())
        ratio = two / one if one and two else None
        results[graph] = rows | {"ratio": ratio}
        print(f"two workers over one, {graph:9} {ratio or float('nan'):6.2f} x (at least 1.7)")
    return results


def growth(options: argparse.Namespace) -> dict:
    """Seconds a batch when the graph grows tenfold at equal degree."""
    results = {}
    for method in ("neighbor", "labor"):
        graphs = ("power-law-small", "power-law")
        entries = {graph: command("graphdyn", method, graph, options) for graph in graphs}
        rows = by_turns(entries, options.rounds)
        small, large = (row.get("seconds_per_batch") for row in rows.values())
        ratio = large / small if small and large else None
        results[method] = rows | {"ratio": ratio}
        print(f"graph ten times as large, {method:9} {ratio or float('nan'):6.2f} x (under 2)")
    return results


def resident(options: argparse.Namespace) -> list[int | None]:
    """Resident bytes after each epoch of sampling and gathering ogbn-arxiv with two workers."""
    graph = read(options.folder / "arxiv")
    recipe = samplers.build("neighbor", fanouts=FANOUTS, batch_size=options.batch_size)
    plans = recipe.prepare(graph, Propagation("mean", False), len(FANOUTS))
    out = []
    for epoch in range(options.epochs):
        for batch in Loader(plans, graph, epochs=range(epoch, epoch + 1), workers=2):
            del batch
        out.append(protocol.memory("VmRSS"))
    megabytes = [round((b or 0) / 2**20) for b in out]
    print(f"resident memory, MB after each epoch: {megabytes}", flush=True)
    return out


PARTS = {part.__name__: part for part in (compare, workers, growth, resident)}


def make_graphs(folder: Path, names: Iterable[str]) -> None:
    """Export what is missing, in a process of its own: this one is watched for its memory."""
    missing = [name for name in names if not (folder / name / "graph.json").exists()]
    if missing:
        script = Path(__file__).parent / "graphs.py"
        words = [sys.executable, script, "--folder", folder, "--only", *missing]
        subprocess.run([str(word) for word in words], check=True)


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if "--contestant" in arguments:
        parser = protocol.parser(__doc__)
        parser.add_argument("--contestant", action="store_true")
        parser.add_argument("--method", default="neighbor")
        parser.add_argument("--workers", type=int, default=0)
        parser.add_argument("--matrix", choices=["none", "mean"], default="none")
        contestant(parser.parse_args(arguments))
        return 0
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--graphbolt-python")
    parser.add_argument("--pyg-python")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--cases", nargs="*", help='of compare, as "neighbor, arxiv"; default all')
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=20, help="timed batches a turn")
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--epochs", type=int, default=20, help="over which memory is watched")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON")
    options = parser.parse_args(arguments)
    make_graphs(options.folder, GRAPHS)
    results = {name: PARTS[name](options) for name in options.parts}
    print(f"written to {save('sampling', results, options.out)}")
    return int('"failed"' in json.dumps(results))


if __name__ == "__main__":
    sys.exit(main())
