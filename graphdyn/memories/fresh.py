"""A selective cache of hidden rows (FreshGNN, Huang et al. 2024, PVLDB 17(6)).

A row is admitted when its gradient is small beside those of the step's other rows, for then the loss
hardly cares, and serves until it is too old or is computed again and found to matter. Nodes in the cache
are not expanded: :mod:`graphdyn.samplers.cached`. As published, the gradient of a row that was read may
evict it, too; here remembered rows are constants, and leave by age. There is room for every node, where
the published ring buffer overwrites. Biased: forward by what is stale, backward since no gradient passes
a remembered row. Shapes: D rows that a hop writes, F features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graphdyn.batch import Batch
from graphdyn.errors import InputError, unknown
from graphdyn.graph import Graph
from graphdyn.memories.history import History, HistoryMemory, recalled
from graphdyn.memories.memory import MemoryRecipe, Setting
from graphdyn.memories.tables import DTYPES, table_bytes
from graphdyn.models.output import Output
from graphdyn.models.past import reads_first
from graphdyn.samplers import Sampler
from graphdyn.samplers.cached import Cached, CachedPlans


@dataclass(frozen=True)
class Fresh(MemoryRecipe):
    """What enters the cache, and how long it stays.

    Attributes:
        p_grad: Share of the rows of a step, those of the smallest gradients, that are (over)written; the
            others are evicted. 0: nothing is ever cached.
        t_stale: Steps that a row serves; 0: none.
        dtype: ``float32`` or ``bfloat16``.
        host: Keep rows in main memory, page-locked, also when the model is on a GPU.
    """

    p_grad: float = 0.9
    t_stale: int = 200
    dtype: str = "float32"
    host: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.p_grad <= 1:
            raise InputError(f"p_grad is {self.p_grad}; it must lie in [0, 1].")
        if self.t_stale < 0:
            raise InputError(f"t_stale is {self.t_stale}; it must be at least 0.")
        if self.dtype not in DTYPES:
            raise unknown("dtype", self.dtype, DTYPES)

    def wrap(self, sampler: Sampler) -> Sampler:
        """See :meth:`MemoryRecipe.wrap`."""
        return Cached(sampler)

    def declare(self, model: Any, graph: Graph) -> int:
        """See :meth:`MemoryRecipe.declare`."""
        return table_bytes(recalled(model, graph), graph.num_nodes, self.dtype)

    def bind(self, setting: Setting) -> FreshMemory:
        """See :meth:`MemoryRecipe.bind`."""
        return FreshMemory(self, setting)


class FreshMemory(HistoryMemory):
    """See :class:`Fresh`; rows are read as those of a history."""

    def __init__(self, recipe: Fresh, setting: Setting):
        super().__init__(History(start="zero", dtype=recipe.dtype, host=recipe.host), setting)
        self.policy = recipe
        # Sources that a cache was asked for, and steps.
        self.asked = torch.zeros(2, dtype=torch.float64, device=setting.graph.device)
        plans = setting.plans.find(CachedPlans)
        if plans is None:
            raise InputError(
                f"the memory 'fresh' needs plans with a cache, got {type(setting.plans).__name__}; prepare "
                "the sampler that Fresh.wrap returns."
            )
        plans.known, plans.reads_features = self.known, reads_first(setting.model)

    def known(self, hop: int, ids: Tensor, step: int) -> Tensor:
        """(R,) bool: whether every row that makes up the state which the hop reads is there, and young."""
        found = torch.ones_like(ids, dtype=torch.bool)
        for before in self.model.recalls(hop):
            age = self.tables.age(before, ids, step)
            found &= (age <= self.policy.t_stale) & (age <= step)  # never written: step + 1
        return found

    def pull(self, batch: Batch) -> Batch:
        """See :meth:`Memory.pull`."""
        blocks = [batch.block(hop) for hop in range(1, self.model.num_hops)]
        self.asked[0] += sum(block.num_src - block.num_dst for block in blocks)
        self.asked[1] += 1
        return super().pull(batch)

    def watch(self, output: Output) -> None:
        """See :meth:`Memory.watch`."""
        for hop in self.tables.rows:
            if output.hidden[hop].requires_grad:
                output.hidden[hop].retain_grad()

    def push(self, batch: Batch, output: Output) -> None:
        """See :meth:`Memory.push`."""
        for hop in self.tables.rows:
            block, rows = batch.block(hop), output.hidden[hop]
            ids = block.dst_id
            calm = smallest(_norms(rows), self.policy.p_grad)
            self.tables.push(hop, ids[calm], rows.detach()[calm], batch.key.step)
            self.tables.forget(hop, ids[~calm])

    def report(self) -> dict[str, float]:
        """Share of the sources found, their mean age in steps, and rows a step that were not computed."""
        (asked, steps), (_, found) = self.asked.tolist(), self.ages.counts.tolist()
        age = super().report()
        self.asked.zero_()
        if not steps:
            return {}
        out = {"cache_hits": found / asked if asked else 0.0, "cache_rows": found / steps}
        return out | ({"cache_age": age["history_age"]} if age else {})

    def state(self) -> dict[str, Tensor]:
        """See :meth:`Memory.state`."""
        return {**super().state(), "asked": self.asked}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See :meth:`Memory.restore`."""
        super().restore(state)
        self.asked.copy_(state["asked"])


def smallest(norm: Tensor, share: float) -> Tensor:
    """(D,) bool: the ``floor(share D)`` smallest; of equals, the first."""
    chosen = torch.argsort(norm, stable=True)[: int(share * norm.numel())]
    out = torch.zeros_like(norm, dtype=torch.bool)
    out[chosen] = True
    return out


def _norms(rows: Tensor) -> Tensor:
    """(D,) norms of the gradients of rows; 0 where the loss does not reach them."""
    if rows.grad is None:
        return torch.zeros(rows.shape[0], device=rows.device)
    return rows.grad.float().norm(dim=1)
