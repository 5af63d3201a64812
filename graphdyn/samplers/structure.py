"""What samplers know of a graph: the propagation matrix, its loops, and what is derived from them.

Computed once before training and shared by all threads; only the scratch is per thread.
"""

from __future__ import annotations

import threading
from functools import cached_property

import torch
from torch import Tensor

from graphdyn.errors import InputError
from graphdyn.graph import Graph, Propagation
from graphdyn.kernels.draw import Workspace, find_loops
from graphdyn.sparse import CSC, Sparse


class Structure:
    """A propagation matrix prepared for sampling.

    Args:
        adjacency: (N, N) from :meth:`graphdyn.graph.Graph.adjacency`; rows sorted by source.

    Attributes:
        adjacency: As given.
    """

    def __init__(self, adjacency: Sparse):
        self.adjacency = adjacency
        self._local = threading.local()

    @classmethod
    def of(cls, graph: Graph, propagation: Propagation, *, inductive: bool = False) -> Structure:
        """The structure of a graph; ``inductive`` keeps edges between training nodes alone."""
        graph = training_graph(graph) if inductive else graph
        return cls(graph.adjacency(propagation))

    @property
    def csc(self) -> CSC:
        """The pattern."""
        return self.adjacency.csc

    @property
    def num_nodes(self) -> int:
        """N."""
        return self.csc.num_dst

    @property
    def device(self) -> torch.device:
        """Where plans are made."""
        return self.csc.device

    @cached_property
    def loops(self) -> Tensor | None:
        """Where the self-loops of each row stand, see :func:`graphdyn.kernels.draw.find_loops`."""
        return find_loops(self.csc)

    @cached_property
    def values(self) -> Tensor:
        """(E,) float32 values of the matrix; ones where it has none."""
        values = self.adjacency.values
        return torch.ones(self.csc.num_edges, device=self.device) if values is None else values

    @cached_property
    def row_value(self) -> Tensor | None:
        """(N,) the one value of each row, as under the norm ``mean``; ``None`` where values differ.

        A batch then reads a value a target in place of a value an edge from all over memory.
        """
        values, csc = self.adjacency.values, self.csc
        if values is None or not csc.num_edges:
            return None
        first = values[csc.indptr[:-1].long().clamp(max=csc.num_edges - 1)]
        return first if torch.equal(first[csc.dst], values) else None

    @cached_property
    def row_sum(self) -> Tensor:
        """(N,) float64 sum of the values of each row."""
        out = torch.zeros(self.num_nodes, dtype=torch.float64, device=self.device)
        return out.index_add_(0, self.csc.dst.long(), self.values.double())

    @property
    def workspace(self) -> Workspace:
        """The scratch of the calling thread."""
        if not hasattr(self._local, "workspace"):
            self._local.workspace = Workspace(self.num_nodes)
        return self._local.workspace


def training_graph(graph: Graph) -> Graph:
    """The graph with the edges between training nodes alone; ids stay, other nodes are isolated.

    Raises:
        InputError: If the graph has no split.
    """
    if graph.split is None:
        raise InputError(f"{graph.name} has no split; inductive sampling needs training nodes.")
    keep = torch.zeros(graph.num_nodes, dtype=torch.bool, device=graph.device)
    keep[graph.split.train] = True
    return edge_subgraph(graph, keep[graph.csc.dst.long()] & keep[graph.csc.indices.long()])


def edge_subgraph(graph: Graph, keep: Tensor) -> Graph:
    """The graph with some of its edges.

    Args:
        graph: Any graph.
        keep: (E,) bool, in the order of ``graph.csc``.

    Returns:
        A graph with the same nodes.
    """
    from dataclasses import replace

    csc = graph.csc
    indptr = torch.zeros_like(csc.indptr)
    indptr[1:] = torch.bincount(csc.dst[keep], minlength=csc.num_dst).cumsum(0)
    weight = None if graph.edge_weight is None else graph.edge_weight[keep]
    return replace(graph, csc=CSC(indptr, csc.indices[keep], csc.num_src), edge_weight=weight)
