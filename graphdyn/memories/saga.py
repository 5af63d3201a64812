"""SAGA for the last layer: the gradient that each node last had stands beside the one that it has now.

Defazio, Bach & Lacoste-Julien 2014 (NeurIPS), "SAGA: A Fast Incremental Gradient Method With Support for
Non-Strongly Convex Composite Objectives", with the weights of any sampler:
``g = sum_i omega_i (g_i - gbar_i) + mean(gbar)``. Gradients by the last linear map have rank 1, so the table
holds C + F numbers a node where the whole model would take all of its parameters. Unbiased for every table
where the sampler's weights are; other layers keep their gradients. Shapes: T nodes in the pool, B rows,
C classes, F_k inputs of the map's k-th matrix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from graphdyn.batch import Batch, full_batch
from graphdyn.errors import unknown
from graphdyn.evaluation import evaluating, forgetting
from graphdyn.graph import Graph
from graphdyn.last_layer import LastLayer, RowGradients
from graphdyn.memories.memory import Memory, MemoryRecipe, Setting
from graphdyn.models.output import Output

STARTS = ("exact", "zero")


@dataclass(frozen=True)
class Saga(MemoryRecipe):
    """One gradient of rank 1 a training node.

    Attributes:
        start: ``exact``: one pass over the whole graph, without dropout, fills the table. ``zero``: a
            plain stochastic gradient until nodes have been seen.
    """

    start: str = "exact"

    def __post_init__(self) -> None:
        if self.start not in STARTS:
            raise unknown("start", self.start, STARTS)

    def check(self, model: nn.Module) -> None:
        """Only where the logits are a linear map, see :mod:`graphdyn.last_layer`."""
        LastLayer(model)

    def declare(self, model: Any, graph: Graph) -> int:
        """Factors of every training node, their sum in float64, and a place for every node."""
        last = LastLayer(model)
        pool = 0 if graph.split is None else graph.split.train.numel()
        width, item = last.weights[0].shape[0], last.weights[0].element_size()
        total = sum(p.numel() for p in last.parameters)
        return pool * (width + sum(last.widths)) * item + 8 * (total + graph.num_nodes)

    def bind(self, setting: Setting) -> SagaMemory:
        """See :meth:`MemoryRecipe.bind`."""
        return SagaMemory(self, setting)


class SagaMemory(Memory):
    """See :class:`Saga`.

    Attributes:
        error: (T, C) b of every node of the pool, as it was last seen.
        inputs: (T, F_k) a_k, likewise.
        mean: The mean over the pool of the gradients in the table, float64, one a parameter.
    """

    def __init__(self, recipe: Saga, setting: Setting):
        self.recipe, self.setting = recipe, setting
        self.last = LastLayer(setting.model)
        pool, weight = setting.pool, self.last.weights[0]
        self.place = torch.full((setting.graph.num_nodes,), -1, device=pool.device)
        self.place[pool] = torch.arange(pool.numel(), device=pool.device)
        self.error = weight.new_zeros(pool.numel(), weight.shape[0])
        self.inputs = tuple(weight.new_zeros(pool.numel(), f) for f in self.last.widths)
        self.mean = [torch.zeros_like(p, dtype=torch.float64) for p in self.last.parameters]
        self._batch: Batch | None = None
        self._now: RowGradients | None = None

    def start(self) -> None:
        """See :meth:`Memory.start`."""
        if self.recipe.start == "zero":
            return
        model = self.setting.model
        batch = full_batch(self.setting.graph, model.propagation, nodes=self.setting.pool)
        self.last.listen()
        with evaluating(model), forgetting(model):
            output = model(batch, hidden=False)
        now = self.last.gradients(output.logits, batch, self.setting.loss)
        self.write(torch.arange(self.error.shape[0], device=self.error.device), now)

    def pull(self, batch: Batch) -> Batch:
        """See :meth:`Memory.pull`."""
        self.last.listen()
        self._batch = batch
        return batch

    def watch(self, output: Output) -> None:
        """See :meth:`Memory.watch`."""
        assert self._batch is not None
        self._now = self.last.gradients(output.logits, self._batch, self.setting.loss)
        self._batch = None

    @torch.no_grad()
    def correct(self, batch: Batch) -> None:
        """See :meth:`Memory.correct`."""
        before = self.read(self.place[batch.seeds]).sum(batch.seed_weight)
        for parameter, own, mean in zip(self.last.parameters, before, self.mean, strict=True):
            if parameter.grad is not None:
                parameter.grad += mean.to(own.dtype) - own

    def push(self, batch: Batch, output: Output) -> None:
        """See :meth:`Memory.push`: the gradients of the step, at the parameters that it saw."""
        assert self._now is not None
        self.write(self.place[batch.seeds], self._now)
        self._now = None

    def read(self, place: Tensor) -> RowGradients:
        """The gradients in the table at (B,) places of the pool."""
        inputs = tuple(a[place] for a in self.inputs)
        return RowGradients(self.error[place], inputs, self.last.bias is not None)

    @torch.no_grad()
    def write(self, place: Tensor, now: RowGradients) -> None:
        """Put gradients into the table, and what they change into the mean."""
        share = torch.full_like(place, 1 / self.error.shape[0], dtype=torch.float64)
        before = _precise(self.read(place)).sum(share)
        self.error[place] = now.error.to(self.error.dtype)
        for table, a in zip(self.inputs, now.inputs, strict=True):
            table[place] = a.to(table.dtype)
        after = _precise(self.read(place)).sum(share)
        for mean, old, new in zip(self.mean, before, after, strict=True):
            mean += new - old

    def state(self) -> dict[str, Tensor]:
        """See :meth:`Memory.state`."""
        tables = {f"inputs-{k}": a for k, a in enumerate(self.inputs)}
        return {"error": self.error} | tables | {f"mean-{k}": m for k, m in enumerate(self.mean)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See :meth:`Memory.restore`."""
        for name, own in self.state().items():
            own.copy_(state[name])


def _precise(gradients: RowGradients) -> RowGradients:
    """In float64, where the sum of many changes stays close to the mean of the table."""
    b, inputs, bias = gradients
    return RowGradients(b.double(), tuple(a.double() for a in inputs), bias)
