"""Local message compensation: what neighbours outside the batch said, and what they were told, made up for.

LMC (Shi, Liang & Wang 2023, ICLR, "LMC: Fast Training of GNNs via Subgraph Sampling with Provable
Convergence"). With z the output of a hop, V the gradient of the full-graph mean loss with respect to it,
and u a node beside the batch, of whose neighbours some are missing::

    read of z_u   (1 - b_u) zbar_u + b_u z_u      zbar: what the hop last wrote for u in a batch
    passed on     (1 - b_u) Vbar_u + b_u V_u      Vbar: what then arrived at it

Parameters hear of the nodes of the batch alone, weighted by one over the probability of being in it. With
b = 0 and exact tables the gradient is unbiased, in any depth, by any subgraph sampler whose seed weights
are: that of historical embeddings is not, which drops what neighbours outside would have passed back.
The last hop needs no Vbar: its V in the halo is the derivative of these nodes' own loss. Nor does the
first, where nothing is trained below it.
Shapes: N nodes, D rows of a batch with its halo, B of them in the batch, M in the halo.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from graphdyn.batch import Batch, Halo
from graphdyn.checkpoint import below, prefixed
from graphdyn.errors import InputError, unknown
from graphdyn.graph import Graph
from graphdyn.memories.memory import Memory, MemoryRecipe, Setting
from graphdyn.memories.messages import other_than_sum
from graphdyn.memories.passes import exact_gradients, exact_outputs, hop_widths
from graphdyn.memories.tables import DTYPES, Ages, Tables, table_bytes
from graphdyn.models.output import Output
from graphdyn.models.stack import Stack
from graphdyn.samplers import Sampler
from graphdyn.samplers.compensated import Compensated, check_share

STARTS = ("exact", "forward", "zero")


@dataclass(frozen=True)
class Lmc(MemoryRecipe):
    """Two rows a node and hop between the first and the last: its output, and the gradient that arrived there.

    Attributes:
        beta: Largest share b of what is computed in the halo, from 0 (all remembered) to 1.
        score: Of the share, see :class:`graphdyn.samplers.compensated.Compensated`; likewise
        part: how the neighbours that are there are measured.
        start: ``exact``: a pass over the whole graph fills the tables of outputs, and one back those of
            gradients. ``forward``: outputs alone, gradients are 0, as published. ``zero``: neither.
        dtype: ``float32`` or ``bfloat16``.
        host: Keep tables in main memory, page-locked, also when the model is on a GPU.
    """

    beta: float = 1.0
    score: str = "const"
    part: str = "weight"
    start: str = "exact"
    dtype: str = "float32"
    host: bool = False

    def __post_init__(self) -> None:
        for name, known in (("start", STARTS), ("dtype", tuple(DTYPES))):
            if getattr(self, name) not in known:
                raise unknown(name, getattr(self, name), known)
        check_share(self.beta, self.score, self.part)

    def wrap(self, sampler: Sampler) -> Sampler:
        """See :meth:`MemoryRecipe.wrap`."""
        return Compensated(sampler, self.beta, self.score, self.part)

    def check(self, model: nn.Module) -> None:
        """The model must be layers of one hop each, and sum its messages with fixed weights.

        What the hops inside one layer pass on is not kept. Where messages are attended to, or their
        maximum is taken, the derivative of a row that hears from a part of its neighbours is another
        one, however exact the tables are.
        """
        hops = {conv.hops for conv in model.convs} if isinstance(model, Stack) else set()
        if hops != {1}:
            raise InputError(
                f"local message compensation is for layers that each send messages once, but "
                f"{type(model).__name__} is not made of these; use gcn, sage or gcnii."
            )
        what = other_than_sum(model)
        if what:
            raise InputError(
                f"local message compensation needs messages that are summed, but "
                f"{type(model).__name__} {what}; use gcn, sage with mean or sum, or gcnii."
            )

    def declare(self, model: Any, graph: Graph) -> int:
        """See :meth:`MemoryRecipe.declare`."""
        outputs, gradients = _widths(model, graph)
        return sum(table_bytes(w, graph.num_nodes, self.dtype) for w in (outputs, gradients))

    def bind(self, setting: Setting) -> LmcMemory:
        """See :meth:`MemoryRecipe.bind`."""
        return LmcMemory(self, setting)


def _widths(model: Any, graph: Graph) -> tuple[dict[int, int], dict[int, int]]:
    """F by hop of outputs, and of gradients.

    The last hop has the nodes' own loss for that. What the halo would pass on from the first hop reaches
    nothing that is trained, unless the features are projected before it.
    """
    widths = dict(enumerate(hop_widths(model, graph)))
    kept = range(1 if model.encoder is None else 0, model.num_hops - 1)
    return widths, {hop: widths[hop] for hop in kept}


class LmcMemory(Memory):
    """See :class:`Lmc`.

    Attributes:
        outputs: Of every hop.
        gradients: Of the mean loss over the full graph, for hops that pass some on.
    """

    hidden = True

    def __init__(self, recipe: Lmc, setting: Setting):
        self.recipe, self.setting, self.model = recipe, setting, setting.model
        graph = setting.graph
        device = torch.device("cpu") if recipe.host else graph.device
        pin = recipe.host and graph.device.type == "cuda"

        def tables(widths: dict[int, int]) -> Tables:
            kind = recipe.dtype
            return Tables(widths, graph.num_nodes, dtype=kind, device=device, pin=pin)

        self.outputs, self.gradients = map(tables, _widths(self.model, graph))
        self.is_seed = torch.zeros(graph.num_nodes, dtype=torch.bool, device=graph.device)
        self.is_seed[setting.pool] = True
        self.batch: Batch | None = None
        self.arrived: dict[int, Tensor] = {}
        self.ages = Ages(graph.device)

    def start(self) -> None:
        """See :meth:`Memory.start`."""
        if self.recipe.start != "zero":
            self.outputs.fill(exact_outputs(self.model, self.setting.graph), 0)
        if self.recipe.start == "exact":
            s = self.setting
            self.gradients.fill(exact_gradients(self.model, s.graph, s.pool, s.loss), 0)

    def pull(self, batch: Batch) -> Batch:
        """See :meth:`Memory.pull`."""
        halo, ids = _halo(batch), _ids(batch)[_halo(batch).num_inside :]
        blocks = tuple(
            replace(batch.block(hop), halo=replace(halo, state=self.outputs.pull(hop, ids)))
            for hop in range(self.model.num_hops)
        )
        self.ages.add(self.outputs.age(0, ids, batch.key.step))
        self.batch = replace(batch, blocks=blocks)
        return self.batch

    def watch(self, output: Output) -> None:
        """See :meth:`Memory.watch`: gradients are composed on their way back."""
        batch = self.batch
        assert batch is not None
        halo = _halo(batch)
        own = self._own_loss(output.logits.detach(), batch)
        _hook(output.logits, partial(_beside, own=own))
        ids = _ids(batch)[halo.num_inside :]
        for hop in self.gradients.rows:
            past = self.gradients.pull(hop, ids)
            _hook(output.hidden[hop], partial(self._at_hop, hop=hop, halo=halo, past=past))

    def _own_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """(M, C) derivative of the full graph's mean loss with respect to logits of the halo."""
        inside = _halo(batch).num_inside
        ids = _ids(batch)[inside:]
        rows = torch.nonzero(self.is_seed[ids]).flatten()
        labels = self.setting.graph.y
        assert labels is not None
        weight = torch.full((rows.numel(),), 1 / self.setting.pool.numel(), device=rows.device)
        apart = replace(batch, rows=rows, y=labels[ids[rows]], seed_weight=weight)
        with torch.enable_grad():
            point = logits[inside:].clone().requires_grad_()
            return torch.autograd.grad(self.setting.loss(point, apart), point)[0]

    def _at_hop(self, grad: Tensor, hop: int, halo: Halo, past: Tensor) -> Tensor:
        inside = halo.num_inside
        self.arrived[hop] = grad[:inside].detach()
        rest = torch.lerp(past, grad[inside:].float(), halo.share.unsqueeze(1))
        return torch.cat([grad[:inside], rest.to(grad.dtype)])

    def push(self, batch: Batch, output: Output) -> None:
        """See :meth:`Memory.push`."""
        inside, step = _halo(batch).num_inside, batch.key.step
        ids = _ids(batch)[:inside]
        for hop in self.outputs.rows:
            self.outputs.push(hop, ids, output.hidden[hop].detach()[:inside], step)
        for hop, rows in self.arrived.items():
            self.gradients.push(hop, ids, rows, step)
        self.batch, self.arrived = None, {}

    def report(self) -> dict[str, float]:
        """Mean age in steps of the rows that were read."""
        return self.ages.report()

    def state(self) -> dict[str, Tensor]:
        """See :meth:`Memory.state`."""
        tables = {"outputs": self.outputs, "gradients": self.gradients}
        parts = [prefixed(name, held.state()) for name, held in tables.items()]
        return {name: t for part in parts for name, t in part.items()} | {"ages": self.ages.counts}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See :meth:`Memory.restore`."""
        self.outputs.restore(below("outputs", dict(state)))
        self.gradients.restore(below("gradients", dict(state)))
        self.ages.counts.copy_(state["ages"])


def _halo(batch: Batch) -> Halo:
    halo = batch.block(0).halo
    assert halo is not None
    return halo


def _ids(batch: Batch) -> Tensor:
    ids = batch.block(0).node_id
    assert ids is not None
    return ids


def _hook(tensor: Tensor, compose: Callable[[Tensor], Tensor]) -> None:
    if tensor.requires_grad:
        tensor.register_hook(compose)


def _beside(grad: Tensor, own: Tensor) -> Tensor:
    """The gradient at the logits, with what nodes in the halo have to say of their own loss."""
    return torch.cat([grad[: grad.shape[0] - own.shape[0]], own.to(grad.dtype)])
