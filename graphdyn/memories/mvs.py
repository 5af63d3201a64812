"""MVS-GNN: seeds by the norm of their gradient, histories beside them, both renewed every K steps.

Cong, Forsati, Kandemir & Mahdavi 2020 (KDD), "Minimal Variance Sampling with Provable Guarantees for Fast
Training of Graph Neural Networks". An outer step computes a uniform subset V_S of the pool with all its
neighbours, writes what it computed into the histories, and scores the seeds of the K steps that follow by
``g_i = |grad phi_i|``: ``p_i = min(1, g_i / mu)``, sum p = B. Weights 1 / (p_i T) keep the loss unbiased
for the mean over the whole pool, whatever the scores. Where paper and published code differ: the outer
step updates no parameter, as in the code; the paper would take a gradient step with the exact gradient.
Shapes: T nodes in the pool, B seeds expected in a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from graphdyn.batch import Batch
from graphdyn.checkpoint import below, prefixed
from graphdyn.errors import InputError, unknown
from graphdyn.evaluation import evaluating, forgetting
from graphdyn.graph import Graph
from graphdyn.keys import Key
from graphdyn.last_layer import SeedNorms
from graphdyn.loader import gather
from graphdyn.memories.history import History, HistoryMemory
from graphdyn.memories.memory import Setting
from graphdyn.memories.refresh import cost
from graphdyn.models.output import Output
from graphdyn.samplers import Induced, LayeredSampler, Neighbor, Sampler
from graphdyn.samplers.neighbor import NeighborPlans
from graphdyn.samplers.poisson import ScoredDraw
from graphdyn.samplers.sampler import LayeredPlans
from graphdyn.samplers.seeds import even_seeds

UNSEEN = ("mean", "zero")


@dataclass(frozen=True)
class Mvs(History):
    """A history whose sampler draws seeds by gradient norm; with ``induced`` the published method.

    Attributes:
        inner_steps: K, steps from one outer step to the next.
        share: The paper's gamma, |V_S| / T; 1 is the whole pool.
        floor: p <- (1 - floor) p + floor B / T, above 0: nodes outside V_S and nodes without a gradient
            keep a chance, and no weight exceeds 1 / (floor B). The paper has none, and is biased
            between two outer steps.
        unseen: Score of the pool outside V_S: the ``mean`` of those inside, or ``zero`` as published, so
            that the floor alone draws them, rarely, with large weights.
        norm: ``layer``, the gradient by the last linear map; ``logits``, the gradient by the logits.
    """

    inner_steps: int = 20
    share: float = 1.0
    floor: float = 0.1
    unseen: str = "mean"
    norm: str = "layer"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inner_steps < 1:
            raise InputError(f"inner_steps is {self.inner_steps}; it must be at least 1.")
        for name in ("share", "floor"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must lie in (0, 1].")
        if self.unseen not in UNSEEN:
            raise unknown("choice of unseen", self.unseen, UNSEEN)

    def wrap(self, sampler: Sampler) -> Sampler:
        """Seeds by score, and room for histories."""
        seeds = getattr(sampler, "seeds", None)
        if not isinstance(sampler, LayeredSampler | Induced) or seeds not in ("shuffle", "scored"):
            told = f"seeds '{seeds}'" if seeds else f"the sampler {type(sampler).__name__}"
            raise InputError(
                f"mvs draws seeds by their gradients, but was given {told}; use the sampler 'induced' "
                "or a layered one (neighbor, labor, ladies ...), and leave its seeds alone."
            )
        return super().wrap(replace(sampler, seeds="scored"))

    def check(self, model: nn.Module) -> None:
        """See :meth:`MemoryRecipe.check`."""
        super().check(model)
        SeedNorms(model, self.norm)

    def declare(self, model: Any, graph: Graph) -> int:
        """Histories, and a probability (with its weight) for every training node."""
        pool = 0 if graph.split is None else graph.split.train.numel()
        return super().declare(model, graph) + 16 * pool

    def bind(self, setting: Setting) -> MvsMemory:
        """See :meth:`MemoryRecipe.bind`."""
        return MvsMemory(self, setting)


class MvsMemory(HistoryMemory):
    """See :class:`Mvs`.

    Attributes:
        seeds: Whose probabilities are set.
        gain: Predicted at the last outer step: the variance of the gradient of Poisson seeds with equal
            chances, over that with these.
    """

    def __init__(self, recipe: Mvs, setting: Setting):
        super().__init__(recipe, setting)
        self.mvs = recipe
        base = setting.plans.find(LayeredPlans)
        assert base is not None  # wrap saw to it
        seeds = getattr(base.seeds, "whole", base.seeds)  # all ranks of a run score the same draw
        assert isinstance(seeds, ScoredDraw)
        self.seeds = seeds
        self.norms = SeedNorms(self.model, recipe.norm, setting.loss)
        every = Neighbor(fanouts=(-1,))
        self.exact = NeighborPlans(every, base.structure, self.seeds, (-1,) * self.model.num_hops)
        self.gain = 1.0

    def start(self) -> None:
        """See :meth:`Memory.start`."""
        super().start()
        self.renew(self.setting.key.fold("mvs"), 0)

    def push(self, batch: Batch, output: Output) -> None:
        """See :meth:`Memory.push`."""
        super().push(batch, output)
        if (batch.key.step + 1) % self.mvs.inner_steps == 0:
            self.renew(batch.key.fold("mvs"), batch.key.step)

    def renew(self, key: Key, step: int) -> None:
        """The outer step: exact outputs and gradient norms of a uniform subset of the pool.

        Args:
            key: Of the subset.
            step: Written beside the rows of the histories.
        """
        batch, place = self._subset(key)
        self.norms.listen()
        with evaluating(self.model), forgetting(self.model):
            output = self.model(batch, hidden=True)
        found = self.norms.read(output.logits, batch)
        self.write(batch, output, step)
        self.spent += cost(batch, self.model.num_hops)
        scores = found.new_zeros(self.seeds.pool.numel())
        if self.mvs.unseen == "mean":
            scores += found.mean()
        scores[place] = found
        self.seeds.score(scores, self.mvs.floor)
        self.gain = predicted_gain(found, self.seeds.prob[place], self._even)

    @property
    def _even(self) -> float:
        return self.seeds.total / self.seeds.pool.numel()

    def _subset(self, key: Key) -> tuple[Batch, Tensor]:
        """V_S with all its neighbours, and its places in the pool."""
        pool, graph = self.seeds.pool, self.setting.graph
        size = max(1, round(self.mvs.share * pool.numel()))
        place = torch.topk(key.hash(pool), size, largest=False).indices
        plan = self.exact.plan_for(even_seeds(pool[place], 1 / size, self.mvs.share), key)
        assert graph.x is not None
        assert graph.y is not None
        return gather(plan, graph.x, graph.y), place

    def write(self, batch: Batch, output: Output, step: int) -> None:
        """All of the new rows over the old ones, whatever the momentum: they are exact."""
        for hop in self.tables.rows:
            self.tables.push(hop, batch.block(hop).dst_id, output.hidden[hop], step)

    def report(self) -> dict[str, float]:
        """As a history, with outer steps among the passes that only write; the gain that scores promise."""
        return super().report() | {"seed_gain": self.gain}

    def state(self) -> dict[str, Tensor]:
        """See :meth:`Memory.state`; outer steps come at multiples of K, so no step is kept."""
        gain = torch.tensor(self.gain, dtype=torch.float64)
        return super().state() | prefixed("seeds", self.seeds.state()) | {"gain": gain}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See :meth:`Memory.restore`."""
        super().restore(state)
        self.seeds.restore(below("seeds", dict(state)))
        self.gain = float(state["gain"])


def predicted_gain(norms: Tensor, prob: Tensor, even: float) -> float:
    """Variance with equal chances over variance with these, of ``sum_i omega_i g_i`` under Poisson seeds.

    Args:
        norms: (S,) |g_i|.
        prob: (S,) p_i.
        even: B / T.

    Returns:
        ``sum (1 / even - 1) |g|^2 / sum (1 / p - 1) |g|^2``; 1 where nothing varies.
    """
    square = norms.double().square()
    chosen = ((1 / prob.double() - 1) * square).sum()
    uniform = (1 / even - 1) * square.sum()
    return float(uniform / chosen) if chosen > 0 else 1.0
