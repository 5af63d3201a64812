"""Feedback for bandit neighbour sampling: what a layer read of an edge raises the edge's weight.

Liu et al. 2020 (NeurIPS), "Bandit Samplers for Training Graph Neural Networks", algorithm 1: the reward of an
edge is minus the derivative of the estimate's variance by q, ``r = a^2 |h_u|^2 / (k q^2)``, and the weight of
one that was drawn m times is multiplied by ``exp(delta r m / (k q d))``. Here rewards count in units of their
mean over the step's layer before they are clipped: norms of states have no scale of their own. Where a model
attends, a is the structural value of the edge, not its attention. h is what the layer reads, norm and
activation applied, nothing dropped. Rewards drift with the model, so no regret bound applies (Zhang et al.
2021, "A Biased Graph Neural Network Sampler with Near-Optimal Regret"). Shapes: S sources, E edges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graphdyn.batch import Batch, Block
from graphdyn.errors import InputError
from graphdyn.graph import Features, Graph
from graphdyn.memories.memory import Memory, MemoryRecipe, Setting
from graphdyn.memories.states import read_states
from graphdyn.models.output import Output
from graphdyn.samplers import Plans, Sampler
from graphdyn.samplers.bandit import Arms, Bandit, BanditPlans
from graphdyn.samplers.border import BorderedPlans
from graphdyn.samplers.cached import CachedPlans
from graphdyn.sparse import Sparse


@dataclass(frozen=True)
class BanditFeedback(MemoryRecipe):
    """How fast weights follow rewards.

    Attributes:
        delta: Factor of a reward in the exponent; 0: weights stay even.
        clip: Largest reward that counts, in units of the layer's mean.
    """

    delta: float = 0.3
    clip: float = 10.0

    def __post_init__(self) -> None:
        if not self.delta >= 0:
            raise InputError(f"delta is {self.delta}; it must be at least 0.")
        if not self.clip > 0:
            raise InputError(f"clip is {self.clip}; it must be positive.")

    def wrap(self, sampler: Sampler) -> Sampler:
        """See :meth:`MemoryRecipe.wrap`."""
        if not isinstance(sampler, Bandit):
            raise InputError(
                f"the memory 'bandit' teaches the sampler 'bandit', not {type(sampler).__name__}; use that "
                "sampler, or another memory."
            )
        return sampler

    def declare(self, model: Any, graph: Graph) -> int:
        """See :meth:`MemoryRecipe.declare`: weights and shares, a float each an edge and layer."""
        size = graph.num_edges + (graph.num_nodes if model.propagation.self_loops else 0)
        return 8 * size * model.num_hops

    def bind(self, setting: Setting) -> BanditMemory:
        """See :meth:`MemoryRecipe.bind`."""
        return BanditMemory(self, setting)


class BanditMemory(Memory):
    """See :class:`BanditFeedback`."""

    hidden = True

    def __init__(self, recipe: BanditFeedback, setting: Setting):
        plans = bandit_plans(setting.plans)
        self.recipe, self.model, self.plans = recipe, setting.model, plans
        self.arms = plans.arms[::-1]  # first layer first, as blocks are
        self.lead = torch.zeros(2, dtype=torch.float64, device=setting.graph.device)

    def push(self, batch: Batch, output: Output) -> None:
        """See :meth:`Memory.push`."""
        states = read_states(self.model, batch, output)
        for hop, arms in enumerate(self.arms):
            self.learn(batch.block(hop), arms, squares(states[hop]))

    def learn(self, block: Block, arms: Arms, square: Tensor) -> None:
        """Raise the weights of a block's edges.

        Args:
            block: Of the layer.
            arms: Likewise.
            square: (S,) squared norms of what the layer reads.
        """
        assert block.edge_id is not None
        csc, dst = block.adjacency.csc, block.dst_id
        drawn = (csc.indices != csc.dst) & arms.played[dst][csc.dst.long()]
        if block.scale is None or not bool(drawn.any()):
            return
        edge, scale = block.edge_id.long()[drawn], block.scale[drawn]
        value, q = self.plans.structure.values[edge], arms.share[edge]
        reward = value.square() * square[csc.indices.long()[drawn]] / q.square()
        mean = reward.mean()
        reward = (reward / torch.where(mean > 0, mean, 1.0)).clamp(max=self.recipe.clip)
        count = arms.count[dst][csc.dst.long()[drawn]]
        arms.learn(dst, edge, self.recipe.delta * reward * scale / count)
        self.lead += torch.stack([(q * count).double().sum(), q.new_tensor(q.numel()).double()])

    def report(self) -> dict[str, float]:
        """Mean of q d over the edges drawn: 1 where q is even."""
        total, count = self.lead.tolist()
        self.lead.zero_()
        return {"bandit_lead": total / count} if count else {}

    def state(self) -> dict[str, Tensor]:
        """See :meth:`Memory.state`."""
        logs = {f"log-{hop}": arms.log for hop, arms in enumerate(self.arms)}
        shares = {f"share-{hop}": arms.share for hop, arms in enumerate(self.arms)}
        return {**logs, **shares, "lead": self.lead}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See :meth:`Memory.restore`."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])


def bandit_plans(plans: Plans) -> BanditPlans:
    """The bandits under what was put around them.

    Raises:
        InputError: If there are none, or layers read remembered rows, whose states are not known here.
    """
    if plans.find(CachedPlans) or plans.find(BorderedPlans):
        raise InputError(
            "the memory 'bandit' rewards what a step computed, but here layers read remembered rows; "
            "use it alone, or the other memory with the sampler 'neighbor'."
        )
    found = plans.find(BanditPlans)
    if found is None:
        raise InputError(
            f"the memory 'bandit' needs plans of the sampler 'bandit', got {type(plans).__name__}."
        )
    if found.reuse:
        raise InputError(
            "the memory 'bandit' learns layer by layer, but one draw serves all layers (reuse); leave that out."
        )
    return found


def squares(states: Features) -> Tensor:
    """(S,) squared norms of rows, dense or sparse."""
    if not isinstance(states, Sparse):
        return states.detach().float().square().sum(1)
    csc, values = states.csc, states.values
    values = torch.ones(csc.num_edges, device=csc.device) if values is None else values
    out = torch.zeros(csc.num_dst, device=csc.device)
    return out.index_add_(0, csc.dst.long(), values.float().square())
