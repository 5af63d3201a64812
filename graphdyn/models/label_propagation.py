"""Label propagation: no parameters, no features; the baseline that every model on a graph has to beat.

Zhu, Lafferty & Ghahramani 2003 in the form of Huang et al. 2021 ("Combining label propagation and simple
models out-performs graph neural networks", the Correct & Smooth paper).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from graphdyn.errors import InputError
from graphdyn.graph import Graph, Norm, Propagation
from graphdyn.kernels import spmm


def label_propagation(
    graph: Graph, *, alpha: float = 0.9, rounds: int = 50, norm: Norm = "column"
) -> Tensor:
    """Spread the training labels: ``Z <- clamp(alpha S Z + (1 - alpha) Y, 0, 1)``, starting at Y.

    No self-loops are added. A node that no label reaches keeps zero scores in every class.

    Args:
        graph: With classes and a training split.
        alpha: Weight of the neighbours.
        rounds: How many times.
        norm: Of S. ``"column"``, A D^-1, gives the published figures on ogbn-arxiv; ``"sym"`` is the
            D^-1/2 A D^-1/2 of the paper's text and ends two to three points lower there.

    Returns:
        (N, C) float32 scores.

    Raises:
        InputError: If the graph has no classes or no split, or alpha lies outside [0, 1].
    """
    if graph.y is None or graph.task != "multiclass" or graph.split is None:
        raise InputError(f"label propagation needs one class a node and a split; see {graph!r}.")
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha is {alpha}; it must lie in [0, 1].")
    train = graph.split.train
    start = torch.zeros(graph.num_nodes, graph.num_classes, device=graph.device)
    start[train] = one_hot(graph.y[train], graph.num_classes).float()
    adjacency = graph.adjacency(Propagation(norm, self_loops=False))
    scores = start
    for _ in range(rounds):
        scores = (alpha * spmm(adjacency, scores) + (1 - alpha) * start).clamp_(0, 1)
    return scores


def last_argmax(scores: Tensor) -> Tensor:
    """(N,) the best class of each row; of equal scores the last one (as Correct & Smooth's own code)."""
    return scores.shape[1] - 1 - scores.flip(1).argmax(1)
