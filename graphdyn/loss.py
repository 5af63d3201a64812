"""Logits and a batch -> one number whose expectation is the loss over the full graph.

Weighted sums, never means over the batch: a mean would make the loss of a sampled batch depend on
how many nodes happened to be drawn. Shapes: B rows that carry a loss, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from graphdyn.batch import Batch


def node_loss(logits: Tensor, batch: Batch) -> Tensor:
    """``sum_i omega_i phi_i`` over the rows of the batch that carry a loss.

    Args:
        logits: (D, C), the rows of the last block's targets.
        batch: Gives ``rows`` (which logits), ``y``, ``seed_weight`` (omega).

    Returns:
        A scalar. For a full batch it is the mean loss over its nodes; for a sampled one an
        estimate of it, unbiased where the sampler's weights are and the logits are exact.
    """
    losses = node_losses(logits, batch)
    return (batch.seed_weight.to(losses.dtype) * losses).sum()


def node_losses(logits: Tensor, batch: Batch) -> Tensor:
    """The loss phi_i of each row that carries one, neither weighted nor reduced.

    Args:
        logits: (D, C).
        batch: Gives ``rows`` and ``y``.

    Returns:
        (B,) losses in nats, see :func:`label_losses`.
    """
    return label_losses(logits.index_select(0, batch.rows), batch.y)


def label_losses(logits: Tensor, y: Tensor) -> Tensor:
    """The loss of each row against its label.

    Classes: cross-entropy; 0 for label -1 (unlabelled). Multi-label: binary cross-entropy with logits,
    averaged over the node's labelled classes; NaN marks a missing label, and a node without any label
    has loss 0.

    Args:
        logits: (B, C); half precision is computed in float32.
        y: (B,) classes, or (B, C) 0/1.

    Returns:
        (B,) losses in nats.
    """
    logits = logits.float() if logits.dtype.itemsize < 4 else logits
    if y.ndim == 2:
        return _multilabel(logits, y)
    return F.cross_entropy(logits, y, ignore_index=-1, reduction="none")


def _multilabel(logits: Tensor, y: Tensor) -> Tensor:
    known = ~torch.isnan(y)
    target = torch.where(known, y, 0.0).to(logits.dtype)
    losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return torch.where(known, losses, 0.0).sum(1) / known.sum(1).clamp(min=1)
