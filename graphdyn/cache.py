"""FeatureCache: the rows that batches read most, kept where they are read fastest.

On a GPU they stay in its memory and cross no bus; on a CPU they stay in RAM while the rest of a
memory-mapped table stays on disk. What a batch gets is the same to the bit.
"""

from __future__ import annotations

import threading

import torch
from torch import Tensor

from graphdyn.errors import InputError
from graphdyn.graph import Features, Graph
from graphdyn.kernels.rows import cached_rows
from graphdyn.sparse import Sparse


class FeatureCache:
    """The most probable rows of a feature table on a device, the others where they are.

    Keeping the rows with the largest probabilities maximises the expected hits of a batch.

    Args:
        x: (N, F) dense, on CPU, in memory or memory-mapped.
        probability: (N,) how likely a batch reads each row; only the order counts. See
            :func:`out_degree` for a guess.
        rows: K, rows to keep; or give ``nbytes``.
        nbytes: Most bytes to keep.
        device: Where they are kept, and where batches get all their rows.

    Attributes:
        rows: K.
        hits: Rows read from the cache so far.
        misses: Rows read from ``x`` so far.

    Raises:
        InputError: If ``x`` cannot be cached, or the probabilities or the size do not fit it.
    """

    def __init__(
        self,
        x: Features,
        probability: Tensor,
        *,
        rows: int | None = None,
        nbytes: int | None = None,
        device: torch.device | str = "cpu",
    ):
        if isinstance(x, Sparse) or x.device.type != "cpu":
            kind = "sparse" if isinstance(x, Sparse) else f"on {x.device}"
            raise InputError(f"the features are {kind}; a cache needs dense ones on the CPU.")
        if probability.shape != (x.shape[0],) or bool(torch.isnan(probability).any()):
            raise InputError(
                f"probability has shape {tuple(probability.shape)}; expected ({x.shape[0]},) "
                "numbers, one a node."
            )
        self.rows = _capacity(x, rows, nbytes)
        kept = torch.argsort(probability.cpu(), descending=True, stable=True)[: self.rows]
        # Read in the order of the file, kept in that order: neighbours on disk stay neighbours.
        kept = kept.sort().values
        self.x = x
        self.table = x[kept].to(device)
        self.slot = torch.full((x.shape[0],), -1, dtype=torch.int32)
        self.slot[kept] = torch.arange(self.rows, dtype=torch.int32)
        self.hits = self.misses = 0
        self._counting = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes of the rows that are kept."""
        return self.table.numel() * self.table.element_size()

    @property
    def hit_rate(self) -> float:
        """Share of the rows read so far that were in the cache; 0 before any."""
        return self.hits / max(1, self.hits + self.misses)

    def take(self, ids: Tensor) -> Tensor:
        """(R, F) rows on the cache's device; safe to call from any thread.

        Args:
            ids: (R,) int64 on CPU.
        """
        out, hits = cached_rows(self.x, self.table, self.slot, ids)
        with self._counting:
            self.hits += hits
            self.misses += ids.numel() - hits
        return out


def out_degree(graph: Graph) -> Tensor:
    """(N,) edges that leave each node: how often sampling meets it, to first order.

    Exact up to a factor only where all targets are equally likely and have the same degree.
    """
    return torch.bincount(graph.csc.indices, minlength=graph.num_nodes)


def _capacity(x: Tensor, rows: int | None, nbytes: int | None) -> int:
    if (rows is None) == (nbytes is None):
        raise InputError("give the size of the cache either in rows or in nbytes.")
    if rows is None:
        assert nbytes is not None
        rows = nbytes // (x.shape[1] * x.element_size())
    if rows < 1:
        raise InputError(f"the cache would hold {rows} rows; it must hold at least 1.")
    return min(rows, x.shape[0])
