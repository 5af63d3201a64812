"""Forward passes of memories: exact ones over the whole graph, and ones that leave no trace."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from graphdyn.batch import Batch, Block, full_batch
from graphdyn.evaluation import evaluating, forgetting
from graphdyn.gradient import Loss
from graphdyn.graph import Graph
from graphdyn.keys import Key
from graphdyn.loss import node_loss
from graphdyn.models.output import Output
from graphdyn.sparse import CSC, Sparse


def forward(model: Any, batch: Batch) -> Output:
    """A pass without gradients in the model's present mode; buffers (running statistics) stay as they are."""
    buffers = {n: b.clone() for n, b in model.named_buffers()}
    with torch.no_grad():
        return torch.func.functional_call(model, buffers, (batch,), {"hidden": True})


def exact_outputs(model: Any, graph: Graph) -> tuple[Tensor, ...]:
    """(N, F) a hop: what every hop writes for all nodes, without dropout.

    Norms over rows take their statistics from all nodes, as those of a batch do from its rows.
    """
    batch = full_batch(graph, model.propagation)
    with evaluating(model), forgetting(model):
        return model(batch, hidden=True).hidden


def hop_widths(model: Any, graph: Graph) -> tuple[int, ...]:
    """F a hop, read off a graph of one node."""
    one = torch.zeros(1, dtype=torch.int64, device=graph.device)
    csc = CSC(torch.tensor([0, 1], device=graph.device), one, 1)
    dtype = next(model.parameters()).dtype
    x = torch.zeros(1, graph.num_features, dtype=dtype, device=graph.device)
    block = Block(Sparse(csc, torch.ones(1, device=graph.device)))
    batch = Batch(x, (block,), one, one, torch.ones(1, device=graph.device), Key(0))
    with evaluating(model):
        return tuple(h.shape[1] for h in model(batch, hidden=True).hidden)


def exact_gradients(
    model: Any, graph: Graph, nodes: Tensor, loss: Loss = node_loss
) -> tuple[Tensor, ...]:
    """(N, F) a hop: the derivative of the mean loss with respect to what :func:`exact_outputs` gives.

    One pass over the whole graph, and one back. ``parameter.grad`` is not touched.

    Args:
        model: As trained.
        graph: With labels.
        nodes: (T,) nodes whose loss counts.
        loss: (logits, batch) -> scalar.
    """
    batch = full_batch(graph, model.propagation, nodes=nodes)
    with evaluating(model), forgetting(model), torch.enable_grad():
        output = model(batch, hidden=True)
        return torch.autograd.grad(loss(output.logits, batch), output.hidden)
