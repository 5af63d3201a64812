"""PygProblem: an unmodified PyTorch Geometric model under any sampler, for instruments.

Valid for models whose result is a function of features, edges and weights; what a layer does on sampled
edges is its own affair, see :mod:`graphdyn.pyg_loader`. Shapes: N nodes of a batch, b targets, C classes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from graphdyn.batch import Batch, full_batch
from graphdyn.errors import InputError
from graphdyn.graph_problem import GraphProblem
from graphdyn.isolate import seeded
from graphdyn.kernels import dropout
from graphdyn.keys import Key
from graphdyn.loss import label_losses
from graphdyn.problem import Trace, seen
from graphdyn.pyg import to_data
from graphdyn.pyg_loader import PygLoader
from graphdyn.samplers import Neighbor, Seeds
from graphdyn.sight import Sight, batch_norms, layers_of

if TYPE_CHECKING:
    from torch_geometric.data import Data

Forward = Callable[[nn.Module, Any], Tensor]


@dataclass(frozen=True, eq=False)
class PygBatch:
    """What a model gets, and where it comes from.

    Attributes:
        data: As :class:`graphdyn.PygLoader` yields it; seeds come first.
        seeds: (b,) global ids.
        key: Of dropout masks.
    """

    data: Data
    seeds: Tensor
    key: Key


class PygProblem(GraphProblem):
    """A PyG model as it is, on the batches of a :class:`graphdyn.PygLoader`.

    Dropout of rows of nodes (``torch.nn.functional.dropout``, and the module) is keyed by node and by how many
    dropouts came before in the pass, so that a node has the same mask in a batch, in the batch drawn again
    and in the whole graph; other randomness inside a model is seeded by the batch's key.

    Args:
        model: Gives the default of ``call``.
        loader: As in training; its epoch is not touched.
        call: (model, data) -> (>= b, C), seeds first; by default ``model(data.x, data.edge_index,
            data.edge_weight)``, without weights where the model takes none.
        loss: (logits (b, C), labels (b,)) -> (b,) losses, which the seeds' weights sum up.
        layers: Names of the modules whose outputs are the states; by default PyG's layers.
        chunk: Targets of one piece of :meth:`full`, for graphs that do not fit; exact batches are then
            targets with all that they can hear, which is exact for layers that neither normalise nor
            average on their own. ``None``: exact means the whole graph, whatever the layers are.

    Raises:
        InputError: If the model's arguments are not understood; give ``call``.
    """

    def __init__(
        self,
        model: nn.Module,
        loader: PygLoader,
        *,
        call: Forward | None = None,
        loss: Callable[[Tensor, Tensor], Tensor] = label_losses,
        layers: Sequence[str] | None = None,
        chunk: int | None = None,
    ):
        super().__init__(
            loader.graph,
            loader.plans,
            loader.propagation,
            loader.pool,
            num_hops=loader.num_layers,
            chunk=chunk,
        )
        self.loader, self._losses, self.layers = loader, loss, layers
        self.call = _default_call(model, loader.adjs) if call is None else call
        ego = Neighbor(fanouts=(-1,), batch_size=1, reuse=True)
        self._ego: Any = ego.prepare(self.graph, self.propagation, self.num_hops)

    def exact(self, batch: PygBatch) -> PygBatch:
        """See :meth:`Problem.exact`; dropout masks stay those of the batch."""
        take = self._all if self.chunk is None else self._reached
        return take(batch.seeds, batch.data.seed_weight, batch.key)

    def whole(self, batch: PygBatch) -> PygBatch:
        """See :meth:`Problem.whole`."""
        self._refuse_pieces()
        return self._all(batch.seeds, batch.data.seed_weight, batch.key)

    def full(self, key: Key) -> Iterator[PygBatch]:
        """See :meth:`Problem.full`."""
        take = self._all if self.chunk is None else self._reached
        for nodes in self.pool.split(self.chunk or self.num_targets):
            yield take(nodes, self._shares(nodes), key)

    def targets(self, batch: PygBatch) -> tuple[Tensor, Tensor]:
        """See :meth:`Problem.targets`."""
        return batch.seeds, batch.data.seed_weight

    def loss(self, model: nn.Module, batch: PygBatch) -> Tensor:
        """See :meth:`Problem.loss`."""
        with self._keyed(model, batch):
            return self._weighted(*self._answer(model, batch.data), batch.data)

    def trace(self, model: nn.Module, batch: PygBatch) -> Trace:
        """See :meth:`Problem.trace`."""
        data = batch.data
        with (
            self._keyed(model, batch),
            Sight(layers_of(model, self.layers), batch_norms(model)) as sight,
        ):
            logits, losses = self._answer(model, data)
            loss = self._weighted(logits, losses, data)
        found = seen(sight)
        nodes = {n: data.n_id[:k] for n, k in self._heard(data, found["states"]).items()}
        own = [*sight.calls.items()][0 if self.plans.features is None else 1 :]
        reads = {n: c.reads for n, c in own if isinstance(c.reads, Tensor)}
        sources = {n: data.n_id[: x.shape[0]] for n, x in reads.items()}
        ids: dict[str, Any] = {"targets": batch.seeds, "sources": sources, "nodes": nodes}
        return Trace(loss, losses, logits, **found | ids)

    def toy(self, key: Key) -> Callable[[nn.Module], Tensor]:
        """See :meth:`Problem.toy`; a random graph of 24 nodes, half of them targets."""
        graph, batch = self._toy(key)
        data = to_data(batch, graph, num_layers=self.num_hops, adjs=self.loader.adjs)

        def loss(model: nn.Module) -> Tensor:
            with KeyedDropout(None, data.n_id):
                return self._weighted(*self._answer(model, data), data)

        return loss

    def _answer(self, model: nn.Module, data: Any) -> tuple[Tensor, Tensor]:
        """(b, C) logits and (b,) losses."""
        logits = self.call(model, data)[: data.batch_size]
        return logits, self._losses(logits, data.y[: data.batch_size])

    def _weighted(self, logits: Tensor, losses: Tensor, data: Data) -> Tensor:
        return (data.seed_weight.to(losses.dtype) * losses).sum()

    def _keyed(self, model: nn.Module, batch: PygBatch) -> ExitStack:
        stack = ExitStack()
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        stack.enter_context(seeded(device, batch.key))
        stack.enter_context(KeyedDropout(batch.key, batch.data.n_id))
        return stack

    def _heard(self, data: Data, states: dict[str, Tensor]) -> dict[str, int]:
        """How many rows of each state some target can hear: nodes stand in the order of their hops."""
        rows = {name: min(h.shape[0], data.n_id.numel()) for name, h in states.items()}
        if len(states) != self.num_hops:
            return rows
        if "adjs" in data:
            return {n: adj.size[1] for n, adj in zip(states, data.adjs)}
        hops = data.num_sampled_nodes
        return {n: min(rows[n], sum(hops[: self.num_hops - k])) for k, n in enumerate(states)}

    def _all(self, nodes: Tensor, weight: Tensor, key: Key) -> PygBatch:
        batch = full_batch(self.graph, self.propagation, nodes=nodes, key=key)
        return self._batch(replace(batch, seed_weight=weight))

    def _reached(self, nodes: Tensor, weight: Tensor, key: Key) -> PygBatch:
        plan = self._ego.plan_for(Seeds(nodes, weight, torch.ones_like(weight)), key)
        return self._batch(self._gather_exact(plan))

    def _batch(self, batch: Batch) -> PygBatch:
        return PygBatch(self.loader.data(batch), batch.seeds, batch.key)


class KeyedDropout(TorchFunctionMode):
    """As a context: dropout of rows of nodes is a function of key, node and place in the pass.

    Args:
        key: ``None``: nothing is dropped at all.
        ids: (N,) global ids of a batch's nodes; fewer rows are the first of them.
    """

    def __init__(self, key: Key | None, ids: Tensor):
        super().__init__()
        self.key, self.ids, self.count = key, ids, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Torch's protocol: every function that takes tensors passes here."""
        if func is not nn.functional.dropout:
            return func(*args, **(kwargs or {}))
        x, p, training = _dropped(*args, **(kwargs or {}))
        if self.key is None or not training or p == 0:
            return x
        if p >= 1 or x.ndim < 2 or x.shape[0] > self.ids.numel():
            return func(*args, **(kwargs or {}))
        self.count += 1
        return dropout(x, p, self.key.fold("dropout", self.count).bits, self.ids[: x.shape[0]])


def _dropped(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> tuple[Tensor, float, bool]:
    del inplace
    return input, p, training


def _default_call(model: nn.Module, adjs: bool) -> Forward:
    """How PyG's own models are called."""
    names = [*inspect.signature(model.forward).parameters]
    if adjs or "edge_index" not in names:
        what = "layers one by one" if adjs else f"arguments {', '.join(names)}"
        raise InputError(
            f"{type(model).__name__} is called with {what}; say how with call=lambda model, data: ..."
        )
    return _with_weight if "edge_weight" in names else _without_weight


def _with_weight(model: nn.Module, data: Data) -> Tensor:
    weight = data.edge_weight
    assert data.x is not None
    assert weight is not None
    return model(data.x, data.edge_index, edge_weight=weight.to(data.x.dtype))


def _without_weight(model: nn.Module, data: Data) -> Tensor:
    return model(data.x, data.edge_index)
