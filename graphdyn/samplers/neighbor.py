"""Neighbour sampling (Hamilton et al. 2017, GraphSAGE): up to k neighbours of each target.

Unbiased for the aggregate of every layer with the estimator ``ht``: variance (1/k - 1/d) S^2 without
replacement, sigma^2 / k with. Self-loops are kept beside the k, exact.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from graphdyn.errors import InputError
from graphdyn.graph import Graph, Propagation
from graphdyn.kernels.draw import Draw, draw_uniform
from graphdyn.keys import Key
from graphdyn.samplers.sampler import LayeredPlans, Sampler, training_nodes
from graphdyn.samplers.seeds import SeedDraw, Shuffle
from graphdyn.samplers.structure import Structure
from graphdyn.samplers.weight import apply_rule, check_rule


@dataclass(frozen=True)
class Neighbor(Sampler):
    """Neighbour sampling with independent draws per layer.

    Attributes:
        fanouts: Neighbours a target, from the seeds outwards (PyG's ``num_neighbors``); -1 is all. One
            number serves every layer.
        batch_size: Seeds a step, at most.
        replace: Draw with replacement.
        estimator: ``ht`` (s = d/k), ``hajek`` or ``unit``, see :mod:`graphdyn.samplers.weight`.
        reuse: One draw for all layers, as PyG's ``NeighborLoader`` does.
        inductive: Edges between training nodes alone.
    """

    fanouts: tuple[int, ...] = (10,)
    batch_size: int = 1024
    replace: bool = False
    estimator: str = "ht"
    reuse: bool = False
    inductive: bool = False

    def prepare(
        self,
        graph: Graph,
        propagation: Propagation,
        num_hops: int,
        *,
        nodes: Tensor | None = None,
        key: Key = Key(0),
    ) -> NeighborPlans:
        """See :meth:`Sampler.prepare`."""
        check_rule(self.estimator)
        fanouts = expand_fanouts(self.fanouts, num_hops)
        seeds = Shuffle(self.batch_size).bind(training_nodes(graph, nodes))
        structure = Structure.of(graph, propagation, inductive=self.inductive)
        return NeighborPlans(self, structure, seeds, fanouts)


class NeighborPlans(LayeredPlans):
    """See :class:`Neighbor`."""

    def __init__(
        self, sampler: Neighbor, structure: Structure, seeds: SeedDraw, fanouts: tuple[int, ...]
    ):
        super().__init__(structure, seeds, len(fanouts), reuse=sampler.reuse)
        self.sampler, self.fanouts = sampler, fanouts

    def draw(self, dst: Tensor, hop: int, key: Key) -> Draw:
        """See :meth:`LayeredPlans.draw`."""
        csc, loops = self.structure.csc, self.structure.loops
        k, replace = self.fanouts[hop], self.sampler.replace
        draw = draw_uniform(csc, loops, dst, k, key.bits, replace=replace)
        return apply_rule(self.sampler.estimator, draw, self.structure, dst)


def expand_fanouts(fanouts: tuple[int, ...], num_hops: int) -> tuple[int, ...]:
    """One fan-out a hop.

    Raises:
        InputError: If a fan-out is 0 or below -1, or their number does not fit the model.
    """
    bad = [k for k in fanouts if k < 1 and k != -1]
    if bad:
        raise InputError(f"fan-out {bad[0]} is not allowed; give at least 1, or -1 for all.")
    if len(fanouts) == 1:
        return fanouts * num_hops
    if len(fanouts) != num_hops:
        raise InputError(
            f"{len(fanouts)} fan-outs were given, but the model has {num_hops} message-passing "
            "layers; give one for each layer, or a single one for all."
        )
    return fanouts
