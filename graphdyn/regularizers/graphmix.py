"""GraphMix (Verma et al. 2021, AAAI, "GraphMix: Improved Training of GNNs for Semi-Supervised Learning").

A fully-connected branch with the weights of the graph model learns from interpolated nodes: labelled ones, and
unlabelled ones with the graph model's own predictions as targets. Shapes: B rows of a batch, C classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from graphdyn.batch import Batch
from graphdyn.errors import InputError, unknown
from graphdyn.gradient import Loss
from graphdyn.graph import Features, Graph
from graphdyn.kernels.draw import take_rows
from graphdyn.keys import Key
from graphdyn.memories.memory import Memory, Setting
from graphdyn.models.alone import Mixture, untracked
from graphdyn.models.output import Output
from graphdyn.parallel import World
from graphdyn.precision import autocast
from graphdyn.presets import Method
from graphdyn.regularizers.regularizer import Aim, Objective, Regularizer
from graphdyn.regularizers.soft_loss import SOFT_LOSSES, sharpen, soft_losses
from graphdyn.samplers import Full

MODES = ("alternate", "joint")


@dataclass(frozen=True)
class GraphMix(Regularizer):
    """How to interpolate, and how much it counts; the defaults are those of the authors' code on Cora.

    Attributes:
        mode: ``alternate``: each step is, by a fair coin, a step on the loss of the batch or one of the
            branch, as in the authors' code. ``joint``: their sum in every step, as in the paper.
        alpha: Of the Beta(alpha, alpha) that shares come from; 1 is uniform.
        passes: How many predictions under dropout are averaged to a target.
        temperature: To which targets are sharpened.
        gamma: Largest weight of unlabelled nodes.
        ramp_start: Epoch until which that weight is ``exp(-5) gamma``;
        ramp_end: and from which it is gamma; between them it is ``exp(-5 (1 - t)^2) gamma``.
        mix_layers: Layers whose input may be mixed, 0 being features; a step draws one of them.
        loss: Of the branch: ``bce`` (the mean over classes, of the softmax) or ``ce``.
        branch_weight: Of the labelled nodes of the branch, in the mode ``joint``.
        mixup: Interpolate at all; otherwise the branch sees single nodes.
        pseudo: Learn from unlabelled nodes at all.
    """

    mode: Literal["alternate", "joint"] = "alternate"
    alpha: float = 1.0
    passes: int = 10
    temperature: float = 0.1
    gamma: float = 10.0
    ramp_start: float = 500
    ramp_end: float = 1000
    mix_layers: tuple[int, ...] = (1,)
    loss: Literal["bce", "ce"] = "bce"
    branch_weight: float = 1.0
    mixup: bool = True
    pseudo: bool = True

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise unknown("mode of graphmix", self.mode, MODES)
        if self.loss not in SOFT_LOSSES:
            raise unknown("loss of graphmix", self.loss, SOFT_LOSSES)
        for name in ("alpha", "temperature", "passes"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} is {getattr(self, name)}; it must be positive.")
        for name in ("gamma", "branch_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 0.")
        if not self.ramp_end > self.ramp_start:
            raise InputError(
                f"ramp_end is {self.ramp_end}; it must be greater than ramp_start, which is "
                f"{self.ramp_start}."
            )
        if not self.mix_layers or min(self.mix_layers) < 0:
            raise InputError(
                f"mix_layers is {self.mix_layers}; expected numbers of layers, 0 being features."
            )

    def check(self, model: Any, method: Method, graph: Graph, world: World = World()) -> None:
        """See :meth:`Regularizer.check`."""
        if not world.alone:
            raise InputError(
                f"graphmix is not defined for {world.size} ranks, whose nodes would not mix; start one "
                "process."
            )
        if not model.num_hops:
            raise InputError(
                f"graphmix shares the weights of a graph model, and {type(model).__name__} passes no "
                "messages; choose another model."
            )
        if graph.task != "multiclass":
            raise InputError(
                f"graphmix interpolates classes, and {graph.name} has several labels a node; train it "
                "without a regularizer."
            )
        deepest = model.num_states - 1
        if self.mixup and max(self.mix_layers) > deepest:
            raise InputError(
                f"mix_layers is {self.mix_layers}, and the last state of {type(model).__name__} that is "
                f"read has number {deepest}; give smaller ones."
            )
        if not isinstance(method.sampler, Full) or method.memories:
            raise InputError("graphmix needs the sampler 'full', and no memory.")
        assert graph.split is not None
        if self.pseudo and graph.split.train.numel() >= graph.num_nodes:
            raise InputError(
                f"every node of {graph.name} is a training node, so none is unlabelled; give "
                "pseudo=false or another split."
            )

    def bind(self, setting: Setting, memory: Memory) -> GraphMixing:
        """See :meth:`Regularizer.bind`."""
        return GraphMixing(self, setting)

    def weight(self, epoch: int) -> float:
        """Of unlabelled nodes in an epoch."""
        along = (epoch - self.ramp_start) / (self.ramp_end - self.ramp_start)
        return self.gamma * math.exp(-5 * (1 - min(1.0, max(0.0, along))) ** 2)


class Nodes(NamedTuple):
    """What the branch learns from.

    Attributes:
        x: (B, F) features.
        ids: (B,) global ids; a node may be there twice.
        target: (B, C) probabilities.
        weight: (B,) in the loss.
    """

    x: Features
    ids: Tensor
    target: Tensor
    weight: Tensor


class GraphMixing(Objective):
    """The objective of :class:`GraphMix`. Everything that is drawn is a function of the batch's key.

    Args:
        recipe: Its options.
        setting: What is trained.
    """

    names = ("supervised", "mixup", "pseudo")

    def __init__(self, recipe: GraphMix, setting: Setting):
        graph = setting.graph
        self.recipe, self.graph, self.precision = recipe, graph, setting.precision
        self.size = setting.pool.numel()
        rest = torch.ones(graph.num_nodes, dtype=torch.bool, device=graph.device)
        rest[setting.pool] = False
        self.rest = rest.nonzero().flatten()

    def __call__(self, model: Any, batch: Batch, loss: Loss, *, hidden: bool) -> Aim:
        """See :meth:`Objective.__call__`."""
        if self.recipe.mode == "alternate" and not coin(batch.key):
            return self._branch(model, batch)
        aim = super().__call__(model, batch, loss, hidden=hidden)
        if self.recipe.mode == "alternate":
            return aim
        parts = self._branch(model, batch).parts
        return aim._replace(parts=aim.parts | self._joint(parts))

    def every(self, model: Any, batch: Batch, loss: Loss) -> dict[str, Tensor]:
        """See :meth:`Objective.every`."""
        own = super().__call__(model, batch, loss, hidden=False).parts
        parts = self._branch(model, batch).parts
        return own | (self._joint(parts) if self.recipe.mode == "joint" else parts)

    def _joint(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        return parts | {"mixup": self.recipe.branch_weight * parts["mixup"]}

    def _branch(self, model: Any, batch: Batch) -> Aim:
        """Both terms of the branch; its output is that of the labelled rows."""
        labelled = self._labelled(batch)
        value, logits = self._fit(model, labelled, batch, "labelled")
        parts = {"mixup": value}
        if self.recipe.pseudo:
            value, _ = self._fit(model, self._unlabelled(model, batch), batch, "unlabelled")
            parts["pseudo"] = self.recipe.weight(batch.key.epoch) * value
        return Aim(parts, Output(logits, ()), on_batch=False)

    def _labelled(self, batch: Batch) -> Nodes:
        """The rows of the batch; those without a label count nothing."""
        known = batch.y >= 0
        target = nn.functional.one_hot(batch.y.clamp(min=0), self.graph.num_classes)
        x, weight = take_rows(batch.x, batch.rows), batch.seed_weight * known
        return Nodes(x, batch.seeds, target.to(weight.dtype), weight)

    def _unlabelled(self, model: Any, batch: Batch) -> Nodes:
        """As many nodes as are trained on, drawn with replacement from all others."""
        draws = torch.arange(self.size, device=self.rest.device)
        picked = _fold(batch.key, "unlabelled").integers(draws, self.rest.numel())
        ids = self.rest[picked]
        assert self.graph.x is not None
        target = sharpen(self._predict(model, batch, ids), self.recipe.temperature)
        weight = torch.full((self.size,), 1 / self.size, device=ids.device)
        return Nodes(take_rows(self.graph.x, ids), ids, target, weight)

    @torch.no_grad()
    def _predict(self, model: Any, batch: Batch, rows: Tensor) -> Tensor:
        """(R, C) mean probabilities of rows over passes of the graph model, each with dropout of its own."""
        key, total = _fold(batch.key, "passes"), 0
        # Autocast must not keep weights that it has cast here, where no gradient is asked for.
        with untracked(model.modules()), autocast(batch.y.device, self.precision, cache=False):
            for k in range(self.recipe.passes):
                logits = model(batch.at(key.fold(k)), hidden=False).logits.index_select(0, rows)
                logits = logits.float() if logits.dtype.itemsize < 4 else logits
                total = total + logits.softmax(1)
        assert isinstance(total, Tensor)
        return total / self.recipe.passes

    def _fit(self, model: Any, nodes: Nodes, batch: Batch, part: str) -> tuple[Tensor, Tensor]:
        """The loss of the branch on nodes, and its logits.

        Pair (i, j) counts ``B w_i w_j``: for equal weights 1 / B.
        """
        key, weight, target = _fold(batch.key, part), nodes.weight, nodes.target
        mixture = self._mixture(key, nodes.ids) if self.recipe.mixup else None
        drop = key if model.training and batch.dropout else None
        logits = model.alone(nodes.x, nodes.ids, drop, mixture)
        if mixture is not None:
            weight = weight.numel() * weight * weight[mixture.partner]
            target = mixture(target)
        losses = soft_losses(logits, target, self.recipe.loss)
        return (weight.to(losses.dtype) * losses).sum(), logits

    def _mixture(self, key: Key, ids: Tensor) -> Mixture:
        layers = self.recipe.mix_layers
        layer = layers[int(uniform(key.fold("layer")) * len(layers))]
        share = beta(key.fold("share"), self.recipe.alpha)
        return Mixture(layer, share, key.fold("partner").permutation(ids.numel(), ids.device))


def coin(key: Key) -> bool:
    """Whether the step of a key is one on the loss of its batch."""
    return _fold(key, "coin").bits >> 63 == 1


def uniform(key: Key) -> float:
    """One number in [0, 1)."""
    return (key.bits >> 11) * 2.0**-53


def beta(key: Key, alpha: float) -> float:
    """One number from Beta(alpha, alpha), by its inverse distribution function."""
    if alpha == 1:
        return uniform(key)
    from scipy.special import betaincinv

    return float(betaincinv(alpha, alpha, uniform(key)))


def _fold(key: Key, part: str) -> Key:
    return key.fold("graphmix", part)
