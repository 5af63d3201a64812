"""GraphMix (Verma et al. 2021, AAAI, "GraphMix: Improved Training of GNNs for Semi-Supervised Learning").

A fully-connected branch with the weights of the graph model learns from interpolated nodes: labelled ones, and
unlabelled ones with the graph model's own predictions as targets. Shapes: B rows of a batch, C classes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
from graphdyn.regularizers.average import Average
from graphdyn.regularizers.draws import beta, coin, uniform
from graphdyn.regularizers.regularizer import Aim, Objective, Regularizer
from graphdyn.regularizers.soft_loss import SOFT_LOSSES, sharpen, soft_losses
from graphdyn.regularizers.unlabelled import Drawn, Prepare, Spent, source_of

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
        ema: Decay of a moving average of the weights, which is then what is evaluated and kept; 0: none.
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
    ema: float = 0.0

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
        if not 0 <= self.ema < 1:
            raise InputError(f"ema is {self.ema}; it must lie in [0, 1), 0 being off.")
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
        self._check_model(model)
        self._check_method(method)
        if graph.task != "multiclass":
            raise InputError(
                f"graphmix interpolates classes, and {graph.name} has several labels a node; train it "
                "without a regularizer."
            )
        assert graph.split is not None
        if self.pseudo and graph.split.train.numel() >= graph.num_nodes:
            raise InputError(
                f"every node of {graph.name} is a training node, so none is unlabelled; give "
                "pseudo=false or another split."
            )
        if not world.alone:
            raise InputError(
                f"graphmix is not defined for {world.size} ranks, whose nodes would not mix; start one "
                "process."
            )

    def _check_model(self, model: Any) -> None:
        if not model.num_hops:
            raise InputError(
                f"graphmix shares the weights of a graph model, and {type(model).__name__} passes no "
                "messages; choose another model."
            )
        deepest = model.num_states - 1
        if self.mixup and max(self.mix_layers) > deepest:
            raise InputError(
                f"mix_layers is {self.mix_layers}, and the last state that {type(model).__name__} reads has "
                f"number {deepest}, features being 0; give smaller ones."
            )

    def _check_method(self, method: Method) -> None:
        if getattr(method.sampler, "inductive", False):
            raise InputError(
                "graphmix learns from nodes outside the training split, and inductive=true hides them; leave "
                "one of the two out."
            )
        for recipe in method.memories:
            name = type(recipe).__name__
            if not vars(type(recipe)).get("regularized"):
                raise InputError(
                    f"the memory '{name}' follows the loss of every batch, and graphmix minimises something "
                    "else beside it; use no memory, history or svrg."
                )
            if self.mode == "alternate" and getattr(recipe, "refill", None) is not None:
                raise InputError(
                    "refill counts steps, and every other step of graphmix leaves the memory alone; use "
                    "mode=joint, or leave refill out."
                )

    def bind(
        self, setting: Setting, memory: Memory, method: Method, prepare: Prepare
    ) -> GraphMixing:
        """See :meth:`Regularizer.bind`."""
        return GraphMixing(self, setting, memory, method, prepare)

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
        memory: See :meth:`Regularizer.bind`, likewise ``method`` and ``prepare``.
        method: See ``memory``.
        prepare: See ``memory``.
    """

    names = ("supervised", "mixup", "pseudo")

    def __init__(
        self, recipe: GraphMix, setting: Setting, memory: Memory, method: Method, prepare: Prepare
    ):
        super().__init__()
        self.recipe, self.precision = recipe, setting.precision
        self.num_classes, self.num_hops = setting.graph.num_classes, setting.model.num_hops
        self.unlabelled, self.average, self.epoch = None, None, None
        if recipe.pseudo:
            self.unlabelled = source_of(setting, memory, prepare, method.sampler)
        if recipe.ema:
            self.average = Average(setting.model, recipe.ema)

    def runs(self, batch: Batch) -> bool:
        """See :meth:`Objective.runs`: by a coin, where steps alternate."""
        return self.recipe.mode == "joint" or coin(_fold(batch.key, "coin"))

    def __call__(self, model: Any, batch: Batch, loss: Loss, *, hidden: bool) -> Aim:
        """See :meth:`Objective.__call__`."""
        if not self.runs(batch):
            return self._branch(model, batch)
        aim = super().__call__(model, batch, loss, hidden=hidden)
        if self.recipe.mode == "alternate":
            return aim
        return aim._replace(parts=aim.parts | self._branch(model, batch).parts)

    def every(self, model: Any, batch: Batch, loss: Loss) -> dict[str, Tensor]:
        """See :meth:`Objective.every`."""
        own = super().__call__(model, batch, loss, hidden=False).parts
        return own | self._branch(model, batch).parts

    def at(self, epoch: int) -> GraphMixing:
        """See :meth:`Objective.at`."""
        pinned = copy.copy(self)
        pinned.epoch, pinned.spent = epoch, Spent()
        return pinned

    def moved(self) -> None:
        """See :meth:`Objective.moved`."""
        if self.average is not None:
            self.average.update()

    @contextmanager
    def judged(self) -> Iterator[None]:
        """See :meth:`Objective.judged`: the averages, where there are any."""
        if self.average is None:
            yield
            return
        with self.average.in_place():
            yield

    def state(self) -> dict[str, Tensor]:
        """See :meth:`Objective.state`."""
        return {} if self.average is None else self.average.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See :meth:`Objective.restore`."""
        if self.average is not None:
            self.average.restore(state)

    def _branch(self, model: Any, batch: Batch) -> Aim:
        """Both terms of the branch; its output is that of the labelled rows."""
        recipe = self.recipe
        value, logits = self._fit(model, self._labelled(batch), batch, "labelled")
        parts = {"mixup": value * recipe.branch_weight if recipe.mode == "joint" else value}
        if self.unlabelled is not None:
            value, _ = self._fit(model, self._told(model, batch), batch, "unlabelled")
            epoch = batch.key.epoch if self.epoch is None else self.epoch
            parts["pseudo"] = recipe.weight(epoch) * value
        return Aim(parts, Output(logits, ()))

    def _labelled(self, batch: Batch) -> Nodes:
        """The rows of the batch; those without a label count nothing."""
        known = batch.y >= 0
        target = nn.functional.one_hot(batch.y.clamp(min=0), self.num_classes)
        x, weight = take_rows(batch.x, batch.rows), batch.seed_weight * known
        return Nodes(x, batch.seeds, target.to(weight.dtype), weight)

    def _told(self, model: Any, batch: Batch) -> Nodes:
        """Nodes without a label, and what the graph model says of them."""
        assert self.unlabelled is not None
        drawn = self.unlabelled(batch, self.spent)
        target = sharpen(
            self._predict(model, drawn, _fold(batch.key, "passes")), self.recipe.temperature
        )
        return Nodes(drawn.x, drawn.ids, target, drawn.weight)

    @torch.no_grad()
    def _predict(self, model: Any, drawn: Drawn, key: Key) -> Tensor:
        """(R, C) mean probabilities over passes of the graph model, each with dropout of its own."""
        batch, total = drawn.batch, 0.0
        self.spent.passes(batch, self.num_hops, self.recipe.passes)
        # Autocast must not keep weights that it has cast here, where no gradient is asked for.
        with untracked(model.modules()), autocast(batch.y.device, self.precision, cache=False):
            for k in range(self.recipe.passes):
                logits = model(batch.at(key.fold(k)), hidden=False).logits
                logits = logits.index_select(0, drawn.rows)
                logits = logits.float() if logits.dtype.itemsize < 4 else logits
                total = total + logits.softmax(1)
        assert isinstance(total, Tensor)
        return total / self.recipe.passes

    def _fit(self, model: Any, nodes: Nodes, batch: Batch, part: str) -> tuple[Tensor, Tensor]:
        """The loss of the branch on nodes, and its logits.

        Pair (i, j) counts ``B w_i w_j``: for equal weights 1 / B. Over uniform permutations and independent
        draws of nodes with weights 1 / (N p_i), pairs of two nodes then count as in the loss over all N,
        1 / N^2 each; those of a node with itself are 1 in B instead of 1 in N.
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


def _fold(key: Key, part: str) -> Key:
    return key.fold("graphmix", part)
