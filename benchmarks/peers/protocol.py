"""What every contestant shares: arguments, the exported graph, timed batches, one line of JSON.

Needs NumPy, torch and nothing else, because it runs in foreign environments too. A hop is counted from the
seeds: ``--fanouts 15,10,5`` draws up to 15 neighbours of each seed first.
"""

import argparse
import json
import statistics
import time
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

WARMUP = 3  # batches before the first that is timed


def parser(description: str | None) -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    out.add_argument("folder", type=Path, help="an exported graph (benchmarks/graphs.py)")
    out.add_argument("--threads", type=int, default=1)
    out.add_argument("--batches", type=int, default=20, help="timed batches a round")
    out.add_argument("--rounds", type=int, default=1)
    out.add_argument("--batch-size", type=int, default=1024)
    out.add_argument("--fanouts", type=fanouts, default=[15, 10, 5])
    return out


def fanouts(text: str) -> list[int]:
    return [int(k) for k in text.split(",")]


def read(folder: Path, name: str, dtype: torch.dtype | None = None) -> torch.Tensor:
    values = torch.from_numpy(np.load(folder / f"{name}.npy"))
    return values if dtype is None else values.to(dtype)


class Size(NamedTuple):
    """What a batch came out as: edges of all its layers, unique nodes whose features are read."""

    edges: int
    nodes: int


def seed_batches(options: argparse.Namespace, dtype: torch.dtype) -> list[torch.Tensor]:
    """All seed batches of a run in order, from the front again where the seeds end."""
    seeds, size = read(options.folder, "seeds", dtype), options.batch_size
    count = WARMUP + options.rounds * options.batches
    last = max(1, seeds.numel() // size)
    starts = [(i % last) * size for i in range(count)]
    return [seeds[start : start + size].contiguous() for start in starts]


def time_batches(sample, options: argparse.Namespace) -> dict:
    """Call ``sample(i)``, which returns a :class:`Size`, for every batch of every round.

    Returns:
        Edges a second, the median over rounds; edges a second of processor time, which a busy machine
        disturbs less; seconds of every batch and their median; mean sizes.
    """
    for i in range(WARMUP):
        sample(i)
    rates, seconds, sizes = [], [], []
    used = time.process_time()
    for turn in range(options.rounds):
        first = turn * options.batches
        for i in range(first, first + options.batches):
            start = time.perf_counter()
            sizes.append(sample(WARMUP + i))
            seconds.append(time.perf_counter() - start)
        rates.append(sum(size.edges for size in sizes[first:]) / sum(seconds[first:]))
    used = time.process_time() - used
    return {
        "edges_per_second": statistics.median(rates),
        "edges_per_cpu_second": sum(size.edges for size in sizes) / used,
        "seconds_per_batch": statistics.median(seconds),
        "edges_per_batch": statistics.mean(size.edges for size in sizes),
        "nodes_per_batch": statistics.mean(size.nodes for size in sizes),
        "batch_seconds": seconds,
    }


def memory(field: str) -> int | None:
    """Bytes of this process: VmRSS now, VmHWM at most so far. ``None`` where /proc does not tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    line = next(line for line in status.read_text().splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])


def answer(result: dict, options: argparse.Namespace, *packages: str) -> None:
    """The last line of standard output."""
    facts = {
        "threads": options.threads,
        "batch_size": options.batch_size,
        "fanouts": options.fanouts,
        "peak_bytes": memory("VmHWM"),
        "versions": {name: version(name) for name in ("torch", *packages)},
    }
    print(json.dumps(facts | result))
