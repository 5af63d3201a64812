"""Plans that do not expand what a cache holds (FreshGNN, Huang et al. 2024): its subtrees are never drawn.

Drawn from the seeds down, a source whose state the cache knows becomes a remembered row of its block, a
leaf. What is known changes as training goes on, so plans are made one at a time. The draws of targets that
are expanded are those of the sampler alone. Shapes: S sources, D targets, M remembered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from graphdyn.batch import Block, Border, Plan
from graphdyn.errors import InputError
from graphdyn.kernels.draw import relabel
from graphdyn.keys import Key
from graphdyn.samplers.around import AroundPlans
from graphdyn.samplers.layered import LayeredSampler
from graphdyn.samplers.sampler import LayeredPlans, Sampler, Task
from graphdyn.sparse import CSC, Sparse

Known = Callable[[int, Tensor, int], Tensor]


@dataclass(frozen=True)
class Cached(Sampler):
    """A layered sampler beside a cache.

    Attributes:
        sampler: Draws for what the cache does not hold.
    """

    sampler: Sampler

    def make(self, task: Task) -> CachedPlans:
        """See :meth:`Sampler.make`."""
        if not isinstance(self.sampler, LayeredSampler):
            raise InputError(
                "a cache prunes what is drawn layer by layer from the seeds down, which "
                f"{type(self.sampler).__name__} does not do; use a sampler like 'neighbor'."
            )
        return CachedPlans(self.sampler.make(task))


class CachedPlans(AroundPlans):
    """See :class:`Cached`.

    Args:
        base: Plans of the sampler.

    Attributes:
        known: What the cache says: (hop, (R,) nodes, step) -> (R,) bool, whether it holds all that makes
            up the state of a node that this hop reads. ``None``: no cache; plans are those of the sampler.
        reads_features: Whether features of remembered nodes are read. Without, ``Border.first`` is -1.
    """

    def __init__(self, base: LayeredPlans):
        super().__init__(base)
        self.live = True
        self.known: Known | None = None
        self.reads_features = False

    def plan(self, key: Key) -> Plan:
        """See :meth:`Plans.plan`."""
        return self.redraw(key, key)

    def redraw(self, key: Key, again: Key) -> Plan:
        """See :meth:`Plans.redraw`."""
        known, seeds = self.known, self.base.seeds.draw(key)
        if known is None:
            return self.base.plan_for(seeds, again)
        plan = self.base.plan_for(
            seeds, again, lambda block, layer: _cut(block, layer, known, key.step)
        )
        return self._with_features(plan) if self.reads_features else plan

    def _with_features(self, plan: Plan) -> Plan:
        """The plan whose first block brings the features of remembered nodes, as sources of nobody."""
        first, *later = plan.blocks
        assert first.node_id is not None
        ids = [block.border_id for block in later]
        at, nodes = relabel(first.node_id, torch.cat([first.node_id[:0], *ids]), self._workspace)
        places = at.split([i.numel() for i in ids])
        later = [
            block if block.border is None else replace(block, border=Border(place))
            for block, place in zip(later, places)
        ]
        csc, values = first.adjacency.csc, first.adjacency.values
        wider = Sparse(CSC(csc.indptr, csc.indices, nodes.numel()), values)
        return replace(plan, blocks=(replace(first, adjacency=wider, node_id=nodes), *later))

    @property
    def _workspace(self):
        return self.base.structure.workspace


def _cut(block: Block, layer: int, known: Known, step: int) -> Block:
    """The block with those of its sources that are known behind the others; targets are computed."""
    if layer == 0:
        return block  # reads features, which are always at hand
    assert block.node_id is not None
    found = known(layer, block.node_id[block.num_dst :], step)
    if not bool(found.any()):
        return block
    remembered = torch.cat([found.new_zeros(block.num_dst), found])
    order = torch.argsort(remembered.long(), stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(order.numel(), device=order.device)
    csc, values = block.adjacency.csc, block.adjacency.values
    indices = place[csc.indices.long()].to(csc.indices.dtype)
    border = Border(order.new_full((int(found.sum()),), -1))
    adjacency = Sparse(CSC(csc.indptr, indices, csc.num_src), values)
    return replace(block, adjacency=adjacency, node_id=block.node_id[order], border=border)
