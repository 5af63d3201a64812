"""Importance seeds: score many by a forward pass, train on few, drawn in proportion to their gradients.

Katharopoulos & Fleuret 2018 (ICML), "Not All Samples Are Created Equal: Deep Learning with Importance
Sampling", algorithm 1. Of B' uniform seeds b are drawn with replacement by ``q_i ~ |dphi_i / dlogits|``, with
weights 1 / (b B' q_i): unbiased for the mean over the pool, whatever the scores. On only while
``tau = (1 - |q - u|^2 / |q|^2)^(-1/2) = sqrt(B' |q|^2)`` exceeds a threshold; until then batches are uniform
and their own forward pass tells tau. tau^2 is the second moment of uniform over that of importance
gradients if the scores are their norms, so the authors' threshold in tau asks for more than it must.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from graphdyn.batch import Batch
from graphdyn.errors import InputError
from graphdyn.keys import Key
from graphdyn.last_layer import SeedNorms
from graphdyn.loader import gather
from graphdyn.memories.memory import Memory, MemoryRecipe, Setting
from graphdyn.memories.passes import forward
from graphdyn.models.output import Output
from graphdyn.samplers import Sampler
from graphdyn.samplers.presample import Presampled, PresampledPlans
from graphdyn.samplers.seeds import Seeds


@dataclass(frozen=True)
class Importance(MemoryRecipe):
    """Seeds by the norm of their gradient, as the model stands.

    Attributes:
        presample: B' / b, seeds that are scored for each one that is used.
        threshold: tau above which it is on; 0 is always. ``None``: (B' + 3 b) / (3 b), from where on it
            pays if a backward pass costs two forward passes and cost grows with the seeds; sampling
            and overlapping neighbourhoods are not counted.
        smoothing: tau <- smoothing tau + (1 - smoothing) (tau of the step). Starts at 1, where all are
            alike.
        floor: q <- (1 - floor) q + floor / B'. The authors have none; without, nodes that score 0 are
            never drawn, although the neighbours of the step may not be those of the score.
        norm: ``logits``, the authors' upper bound; ``layer``: the gradient by the last linear map.
    """

    presample: int = 5
    threshold: float | None = None
    smoothing: float = 0.9
    floor: float = 0.1
    norm: str = "logits"

    def __post_init__(self) -> None:
        if self.presample < 2:
            raise InputError(f"presample is {self.presample}; it must be at least 2.")
        if not 0 <= self.smoothing < 1:
            raise InputError(f"smoothing is {self.smoothing}; it must lie in [0, 1).")
        if not 0 <= self.floor <= 1:
            raise InputError(f"floor is {self.floor}; it must lie in [0, 1].")

    def wrap(self, sampler: Sampler) -> Sampler:
        """See :meth:`MemoryRecipe.wrap`."""
        return Presampled(sampler, self.presample)

    def check(self, model: nn.Module) -> None:
        """See :meth:`MemoryRecipe.check`."""
        SeedNorms(model, self.norm)

    def bind(self, setting: Setting) -> ImportanceMemory:
        """See :meth:`MemoryRecipe.bind`."""
        return ImportanceMemory(self, setting)


class ImportanceMemory(Memory):
    """See :class:`Importance`.

    Attributes:
        tau: Smoothed.
        threshold: What it must exceed.
    """

    def __init__(self, recipe: Importance, setting: Setting):
        if not isinstance(setting.plans, PresampledPlans):
            raise InputError(
                "importance seeds need plans of their own, without node probabilities or borders; "
                "use another norm than 'weighted-batch', and no other memory that changes plans."
            )
        self.recipe, self.setting, self.plans = recipe, setting, setting.plans
        self.norms = SeedNorms(setting.model, recipe.norm, setting.loss)
        even = (self.plans.many + 3 * self.plans.size) / (3 * self.plans.size)
        self.threshold = even if recipe.threshold is None else recipe.threshold
        self._watched: Batch | None = None
        self._steps = self._chosen = 0
        self._settle(1.0)

    def pull(self, batch: Batch) -> Batch:
        """See :meth:`Memory.pull`: where it is on, the presample goes and the chosen seeds come."""
        self._steps += 1
        if not self.plans.on:
            self._watched = batch
            self.norms.listen()
            return batch
        self._chosen += 1
        self.norms.listen()
        scores = self.norms.read(forward(self.setting.model, batch).logits, batch)
        self.observe(scores)
        chance = chances(scores, self.recipe.floor)
        at = choose(chance, self.plans.size, batch.key.fold("importance"))
        plan = self.plans.plan_for(chosen_seeds(batch.seeds, chance, at), batch.key)
        graph = self.setting.graph
        assert graph.x is not None
        assert graph.y is not None
        return gather(plan, graph.x, graph.y).to(batch.y.device)

    def watch(self, output: Output) -> None:
        """See :meth:`Memory.watch`."""
        if self._watched is not None:
            self.observe(self.norms.read(output.logits, self._watched))
            self._watched = None

    def observe(self, scores: Tensor) -> None:
        """Let the scores of a step tell whether the next one is on."""
        share = self.recipe.smoothing
        self._settle(share * self.tau + (1 - share) * tau_of(scores))

    def _settle(self, tau: float) -> None:
        self.tau = tau
        self.plans.on = tau > self.threshold

    def report(self) -> dict[str, float]:
        """tau, and the share of steps that were on."""
        share = self._chosen / max(1, self._steps)
        self._steps = self._chosen = 0
        return {"importance_tau": self.tau, "importance_on": share}

    def state(self) -> dict[str, Tensor]:
        """See :meth:`Memory.state`."""
        counts = torch.tensor([self._steps, self._chosen])
        return {"tau": torch.tensor(self.tau, dtype=torch.float64), "steps": counts}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See :meth:`Memory.restore`."""
        self._steps, self._chosen = state["steps"].tolist()
        self._settle(float(state["tau"]))


def tau_of(scores: Tensor) -> float:
    """``(1 - |q - u|^2 / |q|^2)^(-1/2)`` of scores, q their shares and u even ones; 1 where all are 0.

    Args:
        scores: (P,) not negative.
    """
    s = scores.double()
    total = s.sum()
    return float((s.numel() * s.square().sum()).sqrt() / total) if total > 0 else 1.0


def chances(scores: Tensor, floor: float) -> Tensor:
    """(P,) float64 q: the scores' shares, with a floor; even where all scores are 0.

    Args:
        scores: (P,) not negative, finite.
        floor: Share of the even distribution.

    Raises:
        InputError: If a score is not finite.
    """
    if not bool(torch.isfinite(scores).all()):
        raise InputError("the gradient of a seed is not finite; lower the learning rate.")
    s = scores.double()
    total, even = s.sum(), torch.full_like(s, 1 / max(1, s.numel()))
    return torch.lerp(s / total, even, floor) if total > 0 else even


def choose(chance: Tensor, size: int, key: Key) -> Tensor:
    """(b,) places drawn independently, with replacement, by their chance.

    Args:
        chance: (P,) float64, sum 1.
        size: b.
        key: Of this draw.
    """
    edge = chance.cumsum(0)
    u = key.uniform(torch.arange(size, device=chance.device)) * edge[-1]
    last = int(torch.nonzero(chance)[-1])  # rounding must not reach a place without a chance
    return torch.searchsorted(edge, u, right=True).clamp(max=last)


def chosen_seeds(node_id: Tensor, chance: Tensor, at: Tensor) -> Seeds:
    """The seeds that were drawn, each once, with weight (times drawn) / (b P q).

    Args:
        node_id: (P,) the presample.
        chance: (P,) q.
        at: (b,) places.
    """
    place, times = torch.unique(at, return_counts=True)
    weight = times / (at.numel() * chance.numel() * chance[place])
    prob = 1 - (1 - chance[place]) ** at.numel()
    return Seeds(node_id[place], weight.float(), prob.float())
