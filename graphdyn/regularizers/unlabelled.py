"""Where nodes without a label come from: drawn from the whole graph, or a second stream of a sampler's batches.

Nodes outside the training split, those of validation and test among them: learning is transductive.
Shapes: R nodes are drawn, some of them perhaps twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from graphdyn.batch import Batch, Plan
from graphdyn.costs import bytes_gathered, edges_touched
from graphdyn.errors import InputError
from graphdyn.graph import Features, Graph
from graphdyn.kernels.draw import take_rows
from graphdyn.keys import Key
from graphdyn.loader import gather
from graphdyn.memories.memory import Memory, Setting
from graphdyn.models import GraphUNet
from graphdyn.models.norms import over_rows
from graphdyn.samplers import Full, Neighbor, Plans, Seeds
from graphdyn.samplers.sampler import LayeredPlans

# Plans for given nodes, as training makes them for its own: (nodes) -> plans.
Prepare = Callable[[Tensor], Plans]


class Drawn(NamedTuple):
    """Nodes without a label.

    Attributes:
        batch: What a graph model must see to predict them.
        rows: (R,) rows of its output.
        x: (R, F) features.
        ids: (R,) global ids.
        weight: (R,) in the loss; for equal chances 1 / R.
    """

    batch: Batch
    rows: Tensor
    x: Features
    ids: Tensor
    weight: Tensor


class Spent:
    """What was used beside the batches of training.

    Attributes:
        seconds: Since the beginning: ``sample``, ``gather``, and ``wait``, which is both.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {"sample": 0.0, "gather": 0.0, "wait": 0.0}
        self._counts = Counts(0, 0, 0)

    def time(self, **seconds: float) -> None:
        """So long was waited, and for what."""
        for name, value in seconds.items():
            self.seconds[name] += value
            self.seconds["wait"] += value

    def passes(self, batch: Batch, num_hops: int, times: int) -> None:
        """So many passes of a model over a batch that was gathered once."""
        edges, nodes, size = self._counts
        self._counts = Counts(
            edges + times * edges_touched(batch, num_hops),
            nodes + batch.x.shape[0],
            size + bytes_gathered(batch.x),
        )

    def take(self) -> Counts:
        """Counts since the last call."""
        counts, self._counts = self._counts, Counts(0, 0, 0)
        return counts


class Counts(NamedTuple):
    """Edges that messages went along, rows of features that were gathered, and their bytes."""

    edges: int
    nodes: int
    bytes: int


def others(setting: Setting) -> Tensor:
    """(U,) nodes whose loss does not count, ascending."""
    pool = setting.pool
    rest = torch.ones(setting.graph.num_nodes, dtype=torch.bool, device=pool.device)
    rest[pool] = False
    return rest.nonzero().flatten()


class FromGraph:
    """As many nodes as are trained on, drawn with replacement from all others, as in the authors' code.

    They are predicted from all that lies within reach of them, and no more; masks of dropout belong to
    nodes and edges, so that this is the prediction of the whole graph. Where a norm averages over rows, the
    graph is pooled, or half of it is within reach, it is the whole graph.

    Args:
        setting: What is trained.
        rest: (U,) nodes to draw from.
    """

    def __init__(self, setting: Setting, rest: Tensor):
        self.graph, self.rest = setting.graph, rest
        self.size, model = setting.pool.numel(), setting.model
        self.weight = torch.full((self.size,), 1 / self.size, device=rest.device)
        every = Neighbor(fanouts=(-1,), batch_size=1)
        near = every.prepare(setting.graph, model.propagation, model.num_hops)
        assert isinstance(near, LayeredPlans)
        self.near: LayeredPlans | None = near
        whole = isinstance(model, GraphUNet) or any(over_rows(m) for m in model.modules())
        if whole or self._reaches_half(setting):
            self.near = None

    def __call__(self, batch: Batch, spent: Spent) -> Drawn:
        """Those of the step of a batch, which is the whole graph; what they take is counted."""
        start = time.perf_counter()
        ids = self._draw(batch.key)
        x = take_rows(_features(self.graph), ids)
        if self.near is None:
            spent.time(gather=time.perf_counter() - start)
            return Drawn(batch, ids, x, ids, self.weight)
        plan, rows = self._within_reach(ids, batch.key)
        sampled = time.perf_counter()
        near = _gather(plan, self.graph)
        spent.time(sample=sampled - start, gather=time.perf_counter() - sampled)
        return Drawn(near, rows, x, ids, self.weight)

    def _draw(self, key: Key) -> Tensor:
        draws = torch.arange(self.size, device=self.rest.device)
        return self.rest[_own(key).fold("draw").integers(draws, self.rest.numel())]

    def _within_reach(self, ids: Tensor, key: Key) -> tuple[Plan, Tensor]:
        """Everything that the nodes hear of, and their rows in it."""
        assert self.near is not None
        nodes, rows = torch.unique(ids, return_inverse=True)
        even = torch.full((nodes.numel(),), 1 / nodes.numel(), device=nodes.device)
        return self.near.plan_for(Seeds(nodes, even, torch.ones_like(even)), key), rows

    def _reaches_half(self, setting: Setting) -> bool:
        """Of rows and edges together, in a draw of its own: a function of the seed of the run."""
        plan, _ = self._within_reach(self._draw(setting.key.fold("reach")), setting.key)
        reached = plan.num_nodes + plan.num_edges
        whole = self.graph.num_nodes + setting.model.num_hops * self.graph.num_edges
        return 2 * reached > whole


class FromSampler:
    """The batches of the sampler of training, over the other nodes: step i reads its i-th batch.

    Batches are sampled and gathered when they are asked for, in the thread that trains.

    Args:
        setting: What is trained.
        memory: Of the run; its tables stand in for what a batch does not compute.
        plans: Of the sampler, over the nodes to draw from.
    """

    def __init__(self, setting: Setting, memory: Memory, plans: Plans):
        self.graph, self.memory, self.plans = setting.graph, memory, plans

    def __call__(self, batch: Batch, spent: Spent) -> Drawn:
        """Those of the step of a batch; what they take is counted."""
        step, start = batch.key.step, time.perf_counter()
        key = _own(batch.key).at(epoch=step // self.plans.num_batches, step=step)
        plan = self.plans.plan(key)
        sampled = time.perf_counter()
        found = _gather(plan, self.graph)
        spent.time(sample=sampled - start, gather=time.perf_counter() - sampled)
        x = take_rows(found.x, found.rows)
        return Drawn(self.memory.look(found), found.rows, x, found.seeds, found.seed_weight)


def source_of(
    setting: Setting, memory: Memory, prepare: Prepare, sampler: Any
) -> FromGraph | FromSampler:
    """Where nodes without a label come from under a sampler.

    Raises:
        InputError: If the sampler's plans depend on what training has written.
    """
    rest = others(setting)
    if isinstance(sampler, Full):
        return FromGraph(setting, rest)
    plans = prepare(rest)
    if plans.live or setting.plans.live:
        raise InputError(
            f"the sampler '{type(sampler).__name__}' draws by what it learns of training nodes, and knows "
            "nothing of others; use a sampler that does not learn."
        )
    return FromSampler(setting, memory, plans)


def _own(key: Key) -> Key:
    return key.fold("graphmix", "unlabelled")


def _features(graph: Graph) -> Features:
    assert graph.x is not None
    return graph.x


def _gather(plan: Plan, graph: Graph) -> Batch:
    assert graph.y is not None
    return gather(plan, _features(graph), graph.y)
