"""What a step costs, in counts that depend on no clock."""

from __future__ import annotations

from torch import Tensor

from graphdyn.batch import Batch
from graphdyn.graph import Features


def edges_touched(batch: Batch, num_hops: int) -> int:
    """Edges that a model's hops read, each as often as it is read."""
    return sum(batch.block(hop).adjacency.csc.num_edges for hop in range(num_hops))


def bytes_gathered(x: Features) -> int:
    """Bytes of the rows of features that a batch reads.

    Args:
        x: (S0, F) rows as they were gathered. Of sparse ones, values and column indices count.

    Returns:
        Bytes; what memories pull beside them is not counted.
    """
    if isinstance(x, Tensor):
        return _nbytes(x)
    return _nbytes(x.csc.indices) + (0 if x.values is None else _nbytes(x.values))


def _nbytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
