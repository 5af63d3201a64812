"""Edge lists of any size to compressed structure, with a bounded amount of memory.

An edge u -> v becomes one integer ``v * N + u``; sorting these sorts by target and then by source.
Lists above ``BUCKET`` edges are first dealt into ranges of targets, which are sorted one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np

from graphdyn.data.parts import EdgeChunks
from graphdyn.errors import DataError
from graphdyn.sparse import INT32_MAX

BUCKET = 1 << 25  # edges sorted at once: 256 MiB of keys
BINS = 1 << 16  # resolution of the histogram which cuts the targets into ranges


class Allocate(Protocol):
    """Makes an uninitialised array: in memory, or in a file of the store."""

    def __call__(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Array of a name, shape and dtype."""
        ...


def in_memory(name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """The plain :class:`Allocate`."""
    return np.empty(shape, dtype)


@dataclass(frozen=True)
class Rules:
    """What happens to the edges as stored.

    Attributes:
        undirected: Add the reverse of every edge; implies ``coalesce``.
        coalesce: Merge duplicate edges.
        drop_loops: Remove self-loops.
    """

    undirected: bool = False
    coalesce: bool = False
    drop_loops: bool = False


def build_csc(
    edges: EdgeChunks,
    num_nodes: int,
    rules: Rules,
    allocate: Allocate = in_memory,
    scratch: Path | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Compress an edge list by target.

    Args:
        edges: Yields (sources, targets) in pieces; read twice.
        num_nodes: N.
        rules: What happens to reverses, duplicates and loops.
        allocate: Where the result lies.
        scratch: Folder for what does not fit in one bucket; ``None`` keeps it in memory.

    Returns:
        ``indptr`` (N + 1,) and ``indices`` (E,), int32 where they fit, else int64.

    Raises:
        DataError: If an edge leaves 0..N-1.
    """
    width = -(-num_nodes // BINS)
    histogram = _histogram(edges, num_nodes, width, rules)
    bounds = _cut(histogram, width, num_nodes)
    buckets = _deal(edges, num_nodes, bounds, rules, scratch)
    degree = np.zeros(num_nodes, np.int64)
    total = 0
    for bucket in buckets:
        keys = bucket.take()
        keys.sort()
        if (rules.coalesce or rules.undirected) and keys.size:
            keys = keys[np.concatenate([[True], keys[1:] != keys[:-1]])]
        lo, hi = bucket.low, bucket.high
        if keys.size:
            dst = keys // num_nodes
            degree[lo:hi] += np.bincount(dst - lo, minlength=hi - lo)
            keys -= dst * num_nodes
        bucket.put(keys, total_nodes=num_nodes)
        total += keys.size
    return _gather(buckets, degree, total, num_nodes, allocate)


def _gather(buckets, degree, total: int, n: int, allocate: Allocate):
    dtype = np.dtype(np.int32 if max(total, n) <= INT32_MAX else np.int64)
    indptr = allocate("indptr", (n + 1,), dtype)
    indptr[0] = 0
    np.cumsum(degree, out=indptr[1:])
    indices = allocate("indices", (total,), dtype)
    at = 0
    for bucket in buckets:
        part = bucket.take()
        indices[at : at + part.size] = part
        at += part.size
    return indptr, indices


class _Bucket:
    """Edges into one range of targets: pieces in memory, or one scratch file."""

    def __init__(self, low: int, high: int, path: Path | None):
        self.low, self.high, self.path = low, high, path
        self.pieces: list[np.ndarray] = []

    def add(self, keys: np.ndarray) -> None:
        if self.path is None:
            self.pieces.append(keys.copy())  # a view would keep its whole piece alive
        else:
            with self.path.open("ab") as file:
                keys.tofile(file)

    def take(self) -> np.ndarray:
        """All its integers; the bucket is empty afterwards."""
        if self.path is None:
            pieces, self.pieces = self.pieces, []
            return np.concatenate(pieces) if pieces else np.empty(0, np.int64)
        if not self.path.exists():
            return np.empty(0, np.int64)
        out = np.fromfile(self.path, np.int64)
        self.path.unlink()
        return out

    def put(self, sources: np.ndarray, total_nodes: int) -> None:
        if self.path is None:
            small = np.int32 if total_nodes <= INT32_MAX else np.int64
            self.pieces = [sources.astype(small)]
        else:
            sources.tofile(self.path)


def _keys(edges: EdgeChunks, n: int, rules: Rules) -> Iterator[np.ndarray]:
    for src, dst in edges():
        src, dst = src.astype(np.int64, copy=False), dst.astype(np.int64, copy=False)
        if rules.drop_loops:
            keep = src != dst
            src, dst = src[keep], dst[keep]
        yield dst * n + src
        if rules.undirected:
            yield src * n + dst


def _histogram(edges: EdgeChunks, n: int, width: int, rules: Rules) -> np.ndarray:
    """How many edges go into each bin of ``width`` targets; checks the ids on the way."""
    counts = np.zeros(-(-n // width), np.int64)
    seen = 0
    for src, dst in edges():
        _check_ids(src, dst, n, seen)
        seen += src.size
        for ends in (dst, src) if rules.undirected else (dst,):
            counts += np.bincount(ends // width, minlength=counts.size)
    return counts


def _check_ids(src: np.ndarray, dst: np.ndarray, n: int, offset: int) -> None:
    if not src.size or (min(src.min(), dst.min()) >= 0 and max(src.max(), dst.max()) < n):
        return
    e = int(np.flatnonzero((src < 0) | (src >= n) | (dst < 0) | (dst >= n))[0])
    raise DataError(
        f"edge {offset + e} is {src[e]} -> {dst[e]}, but node ids must lie in 0..{n - 1}."
    )


def _cut(histogram: np.ndarray, width: int, n: int) -> np.ndarray:
    """Bounds of target ranges with at most about ``BUCKET`` edges each."""
    filled = np.cumsum(histogram)
    pieces = max(1, -(-int(filled[-1]) // BUCKET))
    goals = filled[-1] * np.arange(1, pieces) / pieces
    inner = (np.searchsorted(filled, goals) + 1) * width
    return np.unique(np.concatenate([[0], np.minimum(inner, n), [n]]))


def _deal(edges, n: int, bounds: np.ndarray, rules: Rules, scratch: Path | None) -> list[_Bucket]:
    spill = scratch if len(bounds) > 2 else None
    buckets = [
        _Bucket(int(lo), int(hi), spill / f"bucket{i}" if spill else None)
        for i, (lo, hi) in enumerate(pairwise(bounds))
    ]
    for keys in _keys(edges, n, rules):
        if len(buckets) == 1:
            buckets[0].add(keys)
            continue
        keys.sort()
        cuts = np.searchsorted(keys, bounds * n)
        for bucket, lo, hi in zip(buckets, cuts[:-1], cuts[1:]):
            if hi > lo:
                bucket.add(keys[lo:hi])
    return buckets
