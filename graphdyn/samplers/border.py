"""Plans with borders: every target hears from all its neighbours, most of them as they are remembered.

=========  ============================================  ==========================================
mode       fresh sources                                 border
=========  ============================================  ==========================================
control    the sampler's edges, its values ``a s``       every edge into the target, ``a (1 - s)``,
                                                         s = 0 where it was not drawn
cvd        as control, ``a sqrt(s)``                      as control, and the means of fresh sources,
                                                         ``a (s - sqrt(s))``
replace    every edge from a node of the batch, ``a``    every other edge into the target, ``a``
=========  ============================================  ==========================================

*control* is the control variate of VR-GCN (Chen, Zhu & Song 2018, "Stochastic Training of Graph
Convolutional Networks with Variance Reduction", equation 5): unbiased for any memory where the sampler's
scales are, exact where the memory is. *replace* is GNNAutoScale (Fey et al. 2021, equation 2): no
sampling variance, biased by what is stale. *cvd* is control under dropout, see
:mod:`graphdyn.samplers.twin`. All take the first layer's neighbours from the features, all
of them. Shapes: D targets, S fresh sources, M rows of the border, E edges.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from graphdyn.batch import Block, Border, Plan
from graphdyn.errors import InputError, unknown
from graphdyn.kernels.border import FullRows, full_rows, left_over
from graphdyn.kernels.draw import relabel
from graphdyn.samplers.around import AroundPlans, one_a_hop
from graphdyn.samplers.compensated import Compensated
from graphdyn.samplers.full import Full
from graphdyn.samplers.inclusion import reach
from graphdyn.samplers.layered import LayeredSampler, without_first
from graphdyn.samplers.preprocess import Preprocessed, own_rows
from graphdyn.samplers.sampler import Sampler, Task
from graphdyn.samplers.shadow import Shadow
from graphdyn.samplers.structure import Structure
from graphdyn.samplers.twin import split

MODES = ("control", "cvd", "replace")


@dataclass(frozen=True)
class Bordered(Sampler):
    """Another sampler, its plans with borders.

    Attributes:
        sampler: Decides which nodes are computed. A layered one draws for all layers but the first,
            whose neighbours are all read; give it fan-outs for those alone.
        mode: See the module.
    """

    sampler: Sampler
    mode: str = "replace"

    @property
    def parallel(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As the sampler inside."""
        return self.sampler.parallel

    def make(self, task: Task) -> BorderedPlans:
        """See :meth:`Sampler.make`."""
        if self.mode not in MODES:
            raise unknown("mode", self.mode, MODES)
        if isinstance(self.sampler, Full | Shadow):
            name = type(self.sampler).__name__.lower()
            why = (
                "computes every node" if isinstance(self.sampler, Full) else "is a model of its own"
            )
            raise InputError(f"the sampler '{name}' {why}, so there is nothing to remember.")
        if isinstance(self.sampler, Compensated):
            raise InputError(
                "the neighbours of a batch are either a halo or a border; give one of the memories "
                "'lmc' and 'history'."
            )
        base, later, x = self.sampler, max(task.num_hops - 1, 0), None
        if isinstance(base, Preprocessed):
            base, x = base.sampler, base.propagated(task)
        if isinstance(base, LayeredSampler):
            base = without_first(base, task.num_hops)
            task = task._replace(num_hops=later)
        return BorderedPlans(base.make(task), self.mode, later, x)


class BorderedPlans(AroundPlans):
    """See :class:`Bordered`.

    Args:
        base: Plans of the layers after the first, or of one block for all.
        mode: See the module.
        num_later: Layers after the first.
        propagated: (N, F) features after the first layer's hop, which then has no neighbours to read.
    """

    def __init__(self, base: Any, mode: str, num_later: int, propagated: Tensor | None = None):
        super().__init__(base)
        self.mode, self.num_later, self.propagated = mode, num_later, propagated
        self.structure: Structure = base.structure

    def target_probability(self) -> list[Tensor] | None:
        """See :meth:`Plans.target_probability`: the base's, and of the nodes that it reads."""
        shared = self.base.target_probability()
        if shared is not None:  # of one block, whose nodes are computed in every layer
            return shared * (self.num_later + 1)
        return reach(self.base, sources=True) or None

    def around(self, plan: Plan) -> Plan:
        """See :meth:`AroundPlans.around`: borders, and a first layer that reads all neighbours."""
        blocks = plan.blocks if self.num_later else ()
        first = self._first(_ids(plan.blocks[0]))
        later = tuple(self._with_first(self.bordered(block), _ids(first)) for block in blocks)
        return replace(plan, blocks=(first, *one_a_hop(later, self.num_later)))

    @property
    def features(self) -> Tensor | None:
        """See :attr:`Plans.features`."""
        return self.propagated

    def _first(self, dst: Tensor) -> Block:
        if self.propagated is not None:
            return own_rows(dst, self.structure.csc.indices.dtype)
        return _block(self._full(dst, dst.numel()))

    def _full(self, fresh: Tensor, num_dst: int) -> FullRows:
        return full_rows(self.structure.adjacency, fresh, num_dst, self.structure.workspace)

    def bordered(self, block: Block) -> Block:
        """A block of ``base`` with a border; ``Border.first`` is left for later."""
        if self.mode == "replace":
            return self._replace(block)
        block = self._control(block)
        if self.mode == "control":
            return block
        assert block.edge_id is not None
        return split(block, self.structure.values[block.edge_id])

    def _replace(self, block: Block) -> Block:
        fresh = _ids(block)
        rows = self._full(fresh, block.num_dst)
        return _block(rows, Border(rows.nodes[fresh.numel() :]))

    def _control(self, block: Block) -> Block:
        fresh, drawn = _ids(block), block.adjacency.csc
        assert block.edge_id is not None
        draw = (drawn, block.edge_id, block.scale)
        rows = left_over(self.structure.adjacency, fresh, *draw, self.structure.workspace)
        return _block(rows, Border(rows.nodes[fresh.numel() :]))

    def _with_first(self, block: Block, read: Tensor) -> Block:
        """The block whose border knows where its nodes stand among those whose features are read."""
        assert block.border is not None
        ids = block.border.first
        if self.propagated is not None:  # these rows are not read: no skip reaches back to them
            at = torch.zeros_like(ids)
        else:
            at, _ = relabel(read, ids, self.structure.workspace)
        return replace(block, border=replace(block.border, first=at))


def _ids(block: Block) -> Tensor:
    assert block.node_id is not None
    return block.node_id


def _block(rows: FullRows, border: Border | None = None) -> Block:
    return Block(rows.matrix, rows.nodes, rows.edge, border=border)
