"""Loss of class probabilities against soft targets, and targets made sharper. Shapes: N rows, C classes."""

from __future__ import annotations

import torch
from torch import Tensor

SOFT_LOSSES = ("bce", "ce")
LEAST = -100.0  # of a logarithm, as in torch's own binary cross-entropy


def soft_losses(logits: Tensor, target: Tensor, kind: str) -> Tensor:
    """(N,) the loss of each row, in nats.

    Args:
        logits: (N, C); half precision is computed in float32.
        target: (N, C) probabilities.
        kind: ``"bce"``: binary cross-entropy of softmax(logits), the mean over classes; logarithms are cut
            at -100. ``"ce"``: cross-entropy.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.float() if logits.dtype.itemsize < 4 else logits
        target = target.to(logits.dtype)
        log_p = logits.log_softmax(1)
        if kind == "ce":
            return -(target * log_p).sum(1)
        return -(target * log_p.clamp(min=LEAST) + (1 - target) * _log_rest(log_p.exp())).mean(1)


def _log_rest(p: Tensor) -> Tensor:
    """log(1 - p), cut where p is 1; no gradient there. NaN stays, for whoever looks after losses."""
    full = p >= 1
    return torch.where(full, LEAST, torch.log1p(-torch.where(full, 0.0, p)))


def sharpen(p: Tensor, temperature: float) -> Tensor:
    """(N, C) ``p^(1/T) / sum p^(1/T)``, by logarithms: powers of small probabilities are 0 in floating point."""
    return (p.log() / temperature).softmax(1)
