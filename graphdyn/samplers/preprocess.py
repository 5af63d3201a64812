"""Plans whose first hop is done: features are A x, computed once, and no batch reads a neighbour for it.

The option "+PP" of VR-GCN (Chen, Zhu & Song 2018, "Stochastic Training of Graph Convolutional Networks with
Variance Reduction"). Exact: the first hop has neither sampling variance nor staleness. Shapes: N nodes, F
features, S sources of the second hop.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from graphdyn.batch import Block, Plan
from graphdyn.errors import InputError
from graphdyn.kernels import spmm
from graphdyn.samplers.around import AroundPlans, one_a_hop
from graphdyn.samplers.compensated import Compensated
from graphdyn.samplers.layered import LayeredSampler, without_first
from graphdyn.samplers.sampler import Plans, Sampler, Task
from graphdyn.samplers.shadow import Shadow
from graphdyn.samplers.structure import Structure
from graphdyn.sparse import CSC, Sparse


@dataclass(frozen=True)
class Preprocessed(Sampler):
    """Another sampler for the hops after the first.

    Valid where the first layer does nothing with features but add up messages;
    :class:`graphdyn.memories.Preprocess` refuses other models.

    Attributes:
        sampler: Draws for the hops after the first; give it fan-outs for those alone.
    """

    sampler: Sampler

    @property
    def parallel(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As the sampler inside."""
        return self.sampler.parallel

    def make(self, task: Task) -> PreprocessedPlans:
        """See :meth:`Sampler.make`."""
        if isinstance(self.sampler, Compensated):
            raise InputError(
                "preprocessing leaves the first hop nothing to compute, but a halo's outputs are composed "
                "at every hop; use the memory 'lmc' without 'preprocess'."
            )
        base, later, x = self.sampler, max(task.num_hops - 1, 0), self.propagated(task)
        if isinstance(base, LayeredSampler):
            base = without_first(base, task.num_hops)
            task = task._replace(num_hops=later)
        return PreprocessedPlans(base.make(task), later, x)

    def propagated(self, task: Task) -> Tensor:
        """(N, F) the features after one hop over what the sampler draws from.

        Raises:
            InputError: If the graph has no features, or the sampler's batches are graphs of their own.
        """
        if isinstance(self.sampler, Shadow):
            raise InputError(
                "preprocessing takes the first hop over the whole graph, but a batch of 'shadow' is a "
                "graph of its own; use another sampler."
            )
        x = task.graph.x
        if x is None:
            raise InputError(f"{task.graph.name} has no features.")
        inductive = getattr(self.sampler, "inductive", False)
        structure = Structure.of(task.graph, task.propagation, inductive=inductive)
        return spmm(structure.adjacency, x if isinstance(x, Tensor) else x.to_dense())


class PreprocessedPlans(AroundPlans):
    """See :class:`Preprocessed`.

    Args:
        base: Plans of the hops after the first, or of one block for all.
        num_later: Hops after the first.
        propagated: (N, F) features after the first hop.
    """

    def __init__(self, base: Plans, num_later: int, propagated: Tensor):
        super().__init__(base)
        self.num_later, self.propagated = num_later, propagated

    @property
    def features(self) -> Tensor:
        """See :attr:`Plans.features`."""
        return self.propagated

    def around(self, plan: Plan) -> Plan:
        """See :meth:`AroundPlans.around`."""
        outer, later = plan.blocks[0], one_a_hop(plan.blocks, self.num_later)
        ids = outer.node_id
        if ids is None:
            ids = torch.arange(outer.num_src, device=outer.adjacency.device)
        first = own_rows(ids, outer.adjacency.csc.indices.dtype)
        return replace(plan, blocks=(first, *later))


def own_rows(ids: Tensor, kind: torch.dtype) -> Block:
    """The identity as a block: each of (S,) nodes reads its own row; indices of the given type."""
    place = torch.arange(ids.numel() + 1, dtype=kind, device=ids.device)
    return Block(Sparse(CSC(place, place[:-1], ids.numel())), ids)
