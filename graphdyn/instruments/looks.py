"""Where instruments of layers look: at the whole graph, or where it does not fit at exact neighbourhoods."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from graphdyn.estimate import Invalid
from graphdyn.graph import Graph
from graphdyn.problem import Trace
from graphdyn.snapshot import Snapshot


class Look(NamedTuple):
    """A forward pass.

    Attributes:
        trace: Of it.
        tag: Behind the names of readings: empty for the whole graph, `` of a batch`` otherwise.
        reason: Why it is not the whole graph; empty if it is.
    """

    trace: Trace
    tag: str
    reason: str


def look(s: Snapshot) -> Look:
    """The whole graph; where a problem cannot give it, the exact neighbourhoods of a batch.

    Raises:
        Invalid: If the problem gives neither.
    """
    try:
        return Look(s.trace("full"), "", "")
    except Invalid as whole:
        try:
            return Look(s.trace("exact"), " of a batch", str(whole))
        except Invalid as exact:
            raise Invalid(f"no exact states: {whole} And: {exact}") from None


def state_grads(trace: Trace) -> dict[str, Tensor]:
    """Derivatives of the loss with respect to the states, by layer, where there are any."""
    names = [n for n, h in trace.states.items() if h.requires_grad]
    if not names or not trace.loss.requires_grad:
        return {}
    states = [trace.states[n] for n in names]
    found = torch.autograd.grad(trace.loss, states, retain_graph=True, allow_unused=True)
    return {n: g for n, g in zip(names, found) if g is not None}


def graph_of(s: Snapshot) -> Graph:
    """The graph.

    Raises:
        Invalid: If the problem has none.
    """
    graph = s.given().graph
    if graph is None:
        raise Invalid("the problem has no graph; use NodeProblem or PygProblem.")
    return graph


def place_of(nodes: Tensor | None, num_nodes: int) -> Tensor | None:
    """(N,) the row of each node, -1 for those that are not there; ``None``: nodes are rows."""
    if nodes is None:
        return None
    place = torch.full((num_nodes,), -1, dtype=torch.int64, device=nodes.device)
    place[nodes] = torch.arange(nodes.numel(), device=nodes.device)
    return place


def degrees(graph: Graph) -> Tensor:
    """(N,) edges into each node, loops not counted."""
    csc = graph.csc
    loops = csc.dst[csc.indices == csc.dst].long()
    return csc.degree - torch.bincount(loops, minlength=graph.num_nodes)
