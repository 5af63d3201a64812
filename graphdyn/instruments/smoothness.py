"""Smoothness: how alike neighbours have become, layer by layer: Dirichlet energies, rank, angles.

Valid for the states of a forward pass on the whole graph in the model's present mode, and for the derivatives
of the loss with respect to them: smoothing on the way forward, and on the way back. Where the graph does not
fit, the same of the subgraph that a batch with exact neighbourhoods induces at each layer; these readings
end in ``of a batch``. Both energies: Cai & Wang 2020 (arXiv 2006.13318), Rusch, Bronstein & Mishra 2023 (arXiv
2303.10993). ``sym`` vanishes for h proportional to sqrt(1 + degree) and not for constant h, ``rw`` the other way
round; energies alone do not say that features collapse, for which there are rank and angles.
Shapes: N nodes, F features, E edges.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from graphdyn.estimate import Estimate, Invalid, Reading
from graphdyn.graph import Graph
from graphdyn.instruments.instrument import Instrument, Need
from graphdyn.instruments.looks import degrees, graph_of, look, place_of, state_grads
from graphdyn.keys import Key
from graphdyn.problem import Trace
from graphdyn.schedule import Auto, Schedule
from graphdyn.snapshot import Snapshot

CHUNK = 1 << 14  # edges, or rows, in float64 at a time


class Smoothness(Instrument):
    """By layer, of the output before norm and activation; with ``_grad`` behind the name of its derivative.

    With H (N, F), d the number of edges into a node, sums over the E directed edges u -> v, loops left out:

    ============  ===============================================================================================
    reading       what it is
    ============  ===============================================================================================
    ``sym``       sum |h_u / sqrt(1 + d_u) - h_v / sqrt(1 + d_v)|^2 / 2|H|^2: on undirected graphs the Rayleigh
                  quotient of I - D^-1/2 (A + I) D^-1/2 (D with the loops), between 0 and 2
    ``rw``        sum |h_u - h_v|^2 / 2|H|^2: on undirected graphs the Rayleigh quotient of D - A
    ``log_rank``  entropy of the singular values of H - mean(H), divided by their sum: the logarithm of the
                  effective rank (Roy & Vetterli 2007), from 0 to log F
    ``mad``       mean of 1 - cos(h_u, h_v) over the edges (Chen et al. 2020, "MAD" of neighbours) between rows
                  that are not 0
    ============  ===============================================================================================

    Standard errors: 0 where all edges are read; else those of a mean over edges that were drawn uniformly,
    with replacement. Prediction: none in general; a linear GCN without weights multiplies a mode of
    eigenvalue mu by mu a layer. A layer whose states are all 0 has no reading.

    Args:
        edges: Read all edges where there are no more than this; else so many of them.
        backward: Also look at derivatives, for one backward pass.
        every: See :class:`Instrument`.

    Attributes:
        reason: Why the last look was not at the whole graph; empty if it was.
    """

    needs = Need.PROBLEM
    every: Schedule = Auto(steps=100)
    full = 2.0

    def __init__(self, *, edges: int = 100_000, backward: bool = True, **options: Any):
        super().__init__(**options)
        self.edges, self.backward, self.reason = edges, backward, ""

    def setup(self, s: Snapshot) -> None:
        """See :meth:`Instrument.setup`."""
        graph_of(s)

    def measure(self, s: Snapshot) -> Reading:
        """See the class.

        Raises:
            Invalid: If the model does not show its layers, or all states are 0.
        """
        graph, (trace, tag, self.reason) = graph_of(s), look(s)
        degree = degrees(graph)
        found: dict[str | tuple[str, str], Any] = {}
        for suffix, rows in _states(trace, self.backward).items():
            for name, h in rows.items():
                key = s.key.fold("edges", name, suffix)
                sample = edges_among(graph, trace.nodes[name], self.edges, key)
                measured = smoothness(h, sample, _own(degree, trace.nodes[name]))
                found |= {(n + suffix + tag, name): v for n, v in measured.items()}
        if not found:
            raise Invalid("there are no states, or all of them are 0.")
        return found


class Edges(NamedTuple):
    """Edges between rows.

    Attributes:
        src: (M,) row that sends.
        dst: (M,) row that hears.
        total: How many there are; ``None``: these are all.
    """

    src: Tensor
    dst: Tensor
    total: int | None = None


def edges_among(graph: Graph, nodes: Tensor | None, most: int, key: Key) -> Edges:
    """Edges between nodes, as rows; a sample with replacement where there are too many.

    Args:
        graph: Where they are.
        nodes: (R,) which nodes the rows are; ``None``: all, in order.
        most: Size of the sample.
        key: Of the sample.
    """
    csc, place = graph.csc, place_of(nodes, graph.num_nodes)
    if place is not None and nodes is not None and nodes.numel() < graph.num_nodes:
        inside = (place[csc.indices] >= 0) & (place[csc.dst] >= 0)
        chosen = torch.nonzero(inside).flatten()
    else:
        chosen = None
    count = graph.num_edges if chosen is None else chosen.numel()
    total = None
    if count > most:
        at = key.integers(torch.arange(most, device=graph.device), count)
        chosen, total = at if chosen is None else chosen[at], count
    src, dst = csc.indices, csc.dst
    if chosen is not None:
        src, dst = src[chosen], dst[chosen]
    src, dst = src.long(), dst.long()
    return Edges(src, dst, total) if place is None else Edges(place[src], place[dst], total)


def smoothness(h: Tensor, edges: Edges, degree: Tensor) -> dict[str, Estimate]:
    """The readings of :class:`Smoothness` of one matrix; none of a matrix of zeros.

    Args:
        h: (N, F).
        edges: Between its rows.
        degree: (N,).
    """
    square = h.double().square().sum()
    if not square > 0:
        return {}
    found = {"log_rank": Estimate(log_rank(h), 0.0, h.shape[0])}
    if edges.src.numel():
        parts = zip(edges.src.split(CHUNK), edges.dst.split(CHUNK))
        every = [torch.cat(each) for each in zip(*(_per_edge(h, *e, degree) for e in parts))]
        sym, rw, apart, known = every
        total = sym.numel() if edges.total is None else edges.total
        for name, values in (("sym", sym), ("rw", rw)):
            scale = total / (2 * square)
            found[name] = _mean(values, scale, edges.total is None)
        if known.any():
            found["mad"] = _mean(apart[known], 1.0, edges.total is None)
    return found


def _per_edge(h: Tensor, src: Tensor, dst: Tensor, degree: Tensor) -> tuple[Tensor, ...]:
    """Both squared differences, 1 - cosine, and whether the cosine exists: (M,) each."""
    a, b = h[src].double(), h[dst].double()
    share = (1 + degree.double()).rsqrt()
    sym = (a * share[src, None] - b * share[dst, None]).square().sum(1)
    lengths = a.norm(dim=1) * b.norm(dim=1)
    known = (lengths > 0) & (src != dst)
    cosine = (a * b).sum(1) / torch.where(known, lengths, 1.0)
    return sym, (a - b).square().sum(1), 1 - cosine, known


def _mean(values: Tensor, scale: Tensor | float, exact: bool) -> Estimate:
    n = values.numel()
    se = 0.0 if exact else values.std() / n**0.5 * scale
    return Estimate(values.mean() * scale, se, n)


def log_rank(h: Tensor) -> Tensor:
    """Entropy of the singular values of (N, F) rows about their mean, from the eigenvalues of (F, F)."""
    mean = h.double().mean(0)
    parts = ((part.double() - mean) for part in h.split(CHUNK))
    gram = torch.stack([part.T @ part for part in parts]).sum(0)
    sigma = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    total = sigma.sum()
    p = sigma / torch.where(total > 0, total, 1.0)
    return -torch.xlogy(p, p).sum()


def _states(trace: Trace, backward: bool) -> dict[str, dict[str, Tensor]]:
    """States by layer and suffix; rows that have a node."""
    out = {"": {n: trace.cut(n, h.detach()) for n, h in trace.states.items()}}
    if backward:
        out["_grad"] = {n: trace.cut(n, g) for n, g in state_grads(trace).items()}
    return out


def _own(degree: Tensor, nodes: Tensor | None) -> Tensor:
    return degree if nodes is None else degree[nodes]
