"""Anchors: parameters of an earlier step, the exact gradient where a memory starts again, and what both share.

An anchor is a dictionary of tensors by the names of ``named_parameters``, those that are trained. SVRG and
SPIDER keep one with a gradient beside it: they are :class:`AnchorRecipe` and :class:`AnchorMemory`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graphdyn.batch import Batch, full_batch
from graphdyn.checkpoint import below, prefixed
from graphdyn.errors import InputError
from graphdyn.gradient import gradient
from graphdyn.graph import Graph
from graphdyn.keys import Key
from graphdyn.memories.memory import Memory, MemoryRecipe, Setting
from graphdyn.samplers.compensated import CompensatedPlans

Anchor = dict[str, Tensor]


def parameters(model: Any) -> Anchor:
    """The trained parameters themselves, detached."""
    return {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}


def copies(model: Any) -> Anchor:
    """An anchor at the present parameters."""
    return {n: p.clone() for n, p in parameters(model).items()}


def anchor_bytes(model: Any) -> int:
    """Bytes of one anchor."""
    return sum(p.numel() * p.element_size() for p in parameters(model).values())


def assign(anchor: Anchor, values: Mapping[str, Tensor]) -> None:
    """Copy values into an anchor, name by name."""
    for name, tensor in anchor.items():
        tensor.copy_(values[name])


def gradients(model: Any) -> Anchor:
    """``.grad`` of the trained parameters, to be written to; zeros where the loss did not reach."""
    for p in model.parameters():
        if p.requires_grad and p.grad is None:
            p.grad = torch.zeros_like(p)
    return {n: p.grad for n, p in model.named_parameters() if p.requires_grad}


def gradient_at(setting: Setting, batch: Batch, anchor: Anchor) -> Anchor:
    """The gradient of a batch at an anchor: same plan, same remembered rows, same dropout masks."""
    return gradient(
        setting.model, batch, parameters=anchor, loss=setting.loss, precision=setting.precision
    )


def full_gradient(setting: Setting, key: Key, masks: int) -> Anchor:
    """The gradient of the mean loss over all nodes that carry one, at the present parameters.

    Nothing is sampled. Batch norms take their statistics from all nodes. Dropout stays on, for it is part
    of the objective: the gradient is averaged over independent masks, so it is unbiased over these.

    Args:
        setting: Of the memory; the model is in training mode.
        key: Of the step.
        masks: How many passes with masks of their own; one says all where nothing is dropped.

    Returns:
        By name of the parameter.
    """
    batch = full_batch(setting.graph, setting.model.propagation, nodes=setting.pool)
    here = parameters(setting.model)
    passes = [gradient_at(setting, batch.at(key.fold("anchor", i)), here) for i in range(masks)]
    if masks == 1:
        return passes[0]
    return {n: torch.stack([g[n] for g in passes]).mean(0) for n in passes[0]}


class Countdown:
    """When a memory starts again: at its first step, and every so many steps from there.

    Args:
        every: Steps between two starts; 0: an epoch.
        setting: Says how many steps an epoch has.
    """

    def __init__(self, every: int, setting: Setting):
        self.every = every or max(1, setting.plans.num_batches)
        self.left = torch.zeros((), dtype=torch.int64)

    @property
    def due(self) -> bool:
        """Whether this step is one."""
        return int(self.left) <= 0

    def step(self) -> None:
        """One step is done."""
        self.left.fill_(self.every - 1 if self.due else int(self.left) - 1)

    def reset(self) -> None:
        """Make the next step one."""
        self.left.zero_()


def check_whole(name: str, value: int, least: int) -> None:
    """Raise :class:`InputError` if an option is below what makes sense."""
    if value < least:
        raise InputError(f"{name} is {value}; it must be at least {least}.")


@dataclass(frozen=True)
class AnchorRecipe(MemoryRecipe):
    """An anchor and a gradient: two copies of the parameters.

    A step costs two forward and backward passes on its batch; every K steps the whole graph is
    differentiated ``masks`` times, in memory that it must fit.

    Attributes:
        every: K, steps between exact gradients; 0: an epoch.
        masks: Dropout masks that the exact gradient is averaged over. What one mask does to it stays
            for K steps; without dropout one is enough.
    """

    every: int = 0
    masks: int = 1

    def __post_init__(self) -> None:
        check_whole("every", self.every, 0)
        check_whole("masks", self.masks, 1)

    def declare(self, model: Any, graph: Graph) -> int:
        """See :meth:`MemoryRecipe.declare`."""
        del graph
        return 2 * anchor_bytes(model)


class AnchorMemory(Memory):
    """An anchor and a gradient, exact from time to time; subclasses correct by them.

    Attributes:
        anchor: Earlier parameters, by name.
        gradient: What is remembered beside them, by name.
    """

    def __init__(self, recipe: AnchorRecipe, setting: Setting):
        if setting.plans.find(CompensatedPlans):
            raise InputError(
                "the gradient of a batch with a halo is composed while a step is taken, and there is none at "
                "an anchor; use the memory 'lmc' without svrg or spider."
            )
        self.setting, self.model, self.masks = setting, setting.model, recipe.masks
        self.anchor, self.gradient = copies(self.model), copies(self.model)
        self.countdown = Countdown(recipe.every, setting)

    def exact(self, batch: Batch) -> Anchor:
        """The gradient of the whole graph at the present parameters, see :func:`full_gradient`."""
        return full_gradient(self.setting, batch.key, self.masks)

    def state(self) -> dict[str, Tensor]:
        """See :meth:`Memory.state`."""
        parts = prefixed("anchor", self.anchor) | prefixed("gradient", self.gradient)
        return parts | {"left": self.countdown.left}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See :meth:`Memory.restore`."""
        assign(self.anchor, below("anchor", dict(state)))
        assign(self.gradient, below("gradient", dict(state)))
        self.countdown.left.copy_(state["left"])
