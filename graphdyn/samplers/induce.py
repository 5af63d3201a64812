"""A block from nodes: the edges among them, in every layer the same."""

from __future__ import annotations

from torch import Tensor

from graphdyn.batch import Block
from graphdyn.kernels.induced import induced
from graphdyn.samplers.structure import Structure
from graphdyn.sparse import CSC, Sparse


def induce(structure: Structure, nodes: Tensor, cuts: Tensor | None = None) -> Block:
    """The subgraph that nodes induce, with the full graph's weights; a square block for every layer.

    Args:
        structure: Of the full graph.
        nodes: (M,) ids, distinct (in each group).
        cuts: (G + 1,) groups, see :func:`graphdyn.kernels.induced.induced`; by default one.

    Returns:
        A block with M sources and the same targets.
    """
    found = induced(structure.csc, nodes, structure.workspace, cuts=cuts)
    csc = CSC(found.indptr.to(found.src.dtype), found.src, nodes.numel())
    values = structure.adjacency.values
    values = None if values is None else values[found.edge.long()]
    return Block(Sparse(csc, values), nodes, found.edge)
