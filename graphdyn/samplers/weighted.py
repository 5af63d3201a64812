"""Weighted neighbour sampling: neighbours of each target by weights, unbiased.

``poisson`` keeps each edge on its own with ``pi = min(1, c w)``, k a row on average; scale 1 / pi.
``wor`` draws exactly k one by one (Efraimidis & Spirakis 2006) with Des Raj's scales, since inclusion
probabilities of that design are neither proportional to the weights nor known in closed form: weighing
by 1 / w, or not at all as ``weight_attr`` of PyG and ``prob`` of DGL, is biased. Self-loops are kept
beside the k, exact.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from graphdyn.errors import InputError, unknown
from graphdyn.graph import Graph, Propagation
from graphdyn.kernels.draw import Draw
from graphdyn.kernels.poisson import thresholds, unit_of
from graphdyn.kernels.weighted import draw_poisson, draw_race
from graphdyn.keys import Key
from graphdyn.samplers.layered import LayeredSampler
from graphdyn.samplers.neighbor import expand_fanouts
from graphdyn.samplers.sampler import LayeredPlans
from graphdyn.samplers.seeds import SeedDraw
from graphdyn.samplers.structure import Structure
from graphdyn.samplers.weight import apply_rule
from graphdyn.sparse import Sparse

DESIGNS = ("poisson", "wor")


class WeightedStructure(Structure):
    """A propagation matrix and the weights that its edges are drawn by.

    Args:
        adjacency: See :class:`graphdyn.samplers.structure.Structure`.
        weight: (E,) float32 in its order, not negative.

    Attributes:
        weight: As given, but 0 at self-loops: these are not drawn.
        unit: In which weights are counted, see :func:`graphdyn.kernels.poisson.unit_of`.
    """

    def __init__(self, adjacency: Sparse, weight: Tensor):
        super().__init__(adjacency)
        csc = self.csc
        self.weight = torch.where(csc.indices == csc.dst, 0.0, weight)
        largest = float(self.weight.max()) if csc.num_edges else 0.0
        self.unit = unit_of(largest, int(csc.degree.max()))


@dataclass(frozen=True)
class WeightedNeighbor(LayeredSampler):
    """Weighted neighbour sampling; other options are those of :class:`graphdyn.samplers.layered.LayeredSampler`.

    Attributes:
        fanouts: Neighbours a target, from the seeds outwards; -1 is all. One number serves every layer.
        weights: ``values``: the size |a| of the matrix entry; the name of one of ``graph.node_attrs``:
            weights (N,) of sources; or a tensor (E,) in the order of ``graph.csc``.
        design: ``poisson``: k on average; ``wor``: exactly k.
    """

    fanouts: tuple[int, ...] = (10,)
    weights: str | Tensor = "values"
    design: str = "poisson"

    def structure(self, graph: Graph, propagation: Propagation) -> WeightedStructure:
        """See :meth:`graphdyn.samplers.layered.LayeredSampler.structure`.

        Args:
            graph: The full graph.
            propagation: The model's.

        Returns:
            The matrix with weights.

        Raises:
            InputError: If weights are unknown, of the wrong shape, negative or not finite, or would
                never draw an edge that counts.
        """
        plain = super().structure(graph, propagation)
        if isinstance(self.weights, str) and self.weights == "values":
            return WeightedStructure(plain.adjacency, plain.values.abs())
        # As edge weights of the graph they find their places among added loops and dropped edges.
        weight = _by_edge(graph, self.weights)
        alone = Propagation("none", propagation.self_loops)
        given = super().structure(replace(graph, edge_weight=weight), alone)
        out = WeightedStructure(plain.adjacency, given.values)
        if self.estimator != "unit":
            _refuse_zeros(out)
        return out

    def bind(
        self, structure: Structure, seeds: SeedDraw, num_hops: int, key: Key
    ) -> WeightedNeighborPlans:
        """See :meth:`graphdyn.samplers.layered.LayeredSampler.bind`."""
        if self.design not in DESIGNS:
            raise unknown("design", self.design, DESIGNS)
        assert isinstance(structure, WeightedStructure)
        fanouts = expand_fanouts(self.fanouts, num_hops)
        # No row has more edges than the graph: all of them.
        fanouts = tuple(k if k > 0 else max(structure.csc.num_edges, 1) for k in fanouts)
        return WeightedNeighborPlans(self, structure, seeds, fanouts)


class WeightedNeighborPlans(LayeredPlans):
    """See :class:`WeightedNeighbor`."""

    def __init__(
        self,
        sampler: WeightedNeighbor,
        structure: WeightedStructure,
        seeds: SeedDraw,
        fanouts: tuple[int, ...],
    ):
        super().__init__(structure, seeds, len(fanouts), reuse=sampler.reuse)
        self.sampler, self.fanouts, self.weighted = sampler, fanouts, structure
        kinds = set(fanouts) if sampler.design == "poisson" else ()
        self.thresholds = {k: thresholds(structure.csc.indptr, structure.weight, k) for k in kinds}

    def draw(self, dst: Tensor, hop: int, key: Key) -> Draw:
        """See :meth:`LayeredPlans.draw`."""
        graph, k = self.weighted, self.fanouts[hop]
        if self.sampler.design == "poisson":
            draw = draw_poisson(graph.csc, graph.weight, self.thresholds[k], dst, key.bits)
        else:
            k = min(k, int(graph.csc.degree.max()))
            draw = draw_race(graph.csc, graph.weight, graph.unit, dst, max(k, 1), key.bits)
        return apply_rule(self.sampler.estimator, draw, graph, dst)

    def edge_probability(self, hop: int) -> Tensor | None:
        """See :meth:`LayeredPlans.edge_probability`."""
        if self.sampler.design != "poisson":
            return None
        csc, weight = self.weighted.csc, self.weighted.weight
        c = self.thresholds[self.fanouts[hop]][csc.dst.long()]
        pi = torch.where(weight > 0, (c * weight).clamp(max=1.0), 0.0).float()
        return torch.where(csc.indices == csc.dst, 1.0, pi)


def _by_edge(graph: Graph, weights: str | Tensor) -> Tensor:
    """(E,) checked float32 weights in the order of the graph."""
    n, e = graph.num_nodes, graph.num_edges
    if isinstance(weights, str):
        if weights not in graph.node_attrs:
            raise unknown("edge weights", weights, ["values", *graph.node_attrs])
        weights = graph.node_attrs[weights]
        if weights.shape != (n,):
            raise InputError(f"source weights have shape {tuple(weights.shape)}; expected ({n},).")
        weights = weights[graph.csc.indices.long()]
    if weights.shape != (e,):
        raise InputError(
            f"weights have shape {tuple(weights.shape)}; expected ({e},), one an edge (weights of "
            "sources go by the name of a node attribute)."
        )
    bad = torch.nonzero(~(torch.isfinite(weights) & (weights >= 0))).flatten()
    if bad.numel():
        raise InputError(
            f"{_edge_name(graph.csc, int(bad[0]))} has weight {float(weights[bad[0]])}; weights must "
            "be finite and not negative."
        )
    return weights.float()


def _refuse_zeros(structure: WeightedStructure) -> None:
    csc = structure.csc
    counts = (structure.values != 0) & (csc.indices != csc.dst)
    lost = torch.nonzero(counts & (structure.weight == 0)).flatten()
    if lost.numel():
        raise InputError(
            f"{_edge_name(csc, int(lost[0]))} has weight 0 and would never be drawn, which biases the "
            "estimate; give it a positive weight, drop it from the graph, or use the estimator 'unit'."
        )


def _edge_name(csc, edge: int) -> str:
    return f"edge {edge} ({int(csc.indices[edge])} -> {int(csc.dst[edge])})"
