"""Exact evaluation on the full graph; reads the model and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from graphdyn.batch import Batch
from graphdyn.graph import Graph
from graphdyn.loss import label_losses
from graphdyn.metrics import metric


@dataclass(frozen=True)
class Scores:
    """What one evaluation found, by part of the split (``train``, ``valid``, ``test``).

    Attributes:
        metric: The data set's own metric, as a fraction of 1.
        loss: Mean loss.
    """

    metric: dict[str, float]
    loss: dict[str, float]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every module's own mode comes back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def predict(model: nn.Module, batch: Batch) -> Tensor:
    """Logits of every target of the batch in evaluation mode.

    Args:
        model: Any graphdyn model.
        batch: The full graph (:func:`graphdyn.batch.full_batch`), or any batch.

    Returns:
        (N, C) logits in float32.
    """
    with evaluating(model):
        return model(batch, hidden=False).logits.float()


def evaluate(model: nn.Module, graph: Graph, batch: Batch) -> Scores:
    """Metric and mean loss on each part of the graph's split.

    Args:
        model: Any graphdyn model.
        graph: With labels and a split.
        batch: The full graph under the model's propagation.

    Returns:
        Scores by part; parts without nodes are absent.
    """
    assert graph.split is not None
    assert graph.y is not None
    logits = predict(model, batch)
    score = metric(graph.metric)
    values, losses = {}, {}
    for name, nodes in graph.split.parts().items():
        if nodes.numel():
            part, y = logits[nodes], graph.y[nodes]
            values[name] = score(part, y)
            losses[name] = label_losses(part, y).double().mean().item()
    return Scores(values, losses)
