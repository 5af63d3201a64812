"""Metrics of predictions: accuracy, micro-averaged F1 and ROC-AUC, as fractions of 1."""

from __future__ import annotations

import torch
from torch import Tensor

from graphdyn.errors import InputError, unknown


def accuracy(logits: Tensor, y: Tensor) -> float:
    """Share of right classes; multi-label: share of right bits, averaged over classes, NaN skipped.

    Args:
        logits: (B, C).
        y: (B,) classes, or (B, C) 0/1 with NaN for unlabelled.
    """
    if y.ndim == 1:
        return (logits.argmax(1) == y).double().mean().item()
    known = ~y.isnan()
    right = ((logits > 0).float() == y) & known
    counts = known.sum(0)
    return (right.sum(0)[counts > 0].double() / counts[counts > 0]).mean().item()


def f1_micro(logits: Tensor, y: Tensor) -> float:
    """Micro-averaged F1: 2 TP / (2 TP + FP + FN) over all classes; for one class a node it is accuracy.

    Args:
        logits: (B, C).
        y: (B,) classes, or (B, C) 0/1 with NaN for unlabelled.
    """
    if y.ndim == 1:
        return accuracy(logits, y)
    known = ~y.isnan()
    guess, truth = (logits > 0)[known], y[known] > 0
    hits, total = (guess & truth).sum().item(), guess.sum().item() + truth.sum().item()
    return 2 * hits / total if total else 0.0


def roc_auc(logits: Tensor, y: Tensor) -> float:
    """Area under the ROC curve: the chance that a positive outranks a negative, ties counting half.

    Args:
        logits: (B, C); with classes in ``y``, C must be 2 and the score is the difference of logits.
        y: (B,) classes 0/1, or (B, C) 0/1 with NaN for unlabelled.

    Returns:
        The mean over the classes that have both positives and negatives (as OGB's evaluator).

    Raises:
        InputError: If no class has both.
    """
    if y.ndim == 1:
        if logits.shape[1] != 2:
            raise InputError(f"roc-auc needs 2 classes; there are {logits.shape[1]}.")
        logits, y = (logits[:, 1] - logits[:, 0])[:, None], y[:, None].float()
    areas = []
    for score, truth in zip(logits.T, y.T):
        known = ~truth.isnan()
        area = _area(score[known].double(), truth[known] > 0)
        if area is not None:
            areas.append(area)
    if not areas:
        raise InputError("roc-auc is undefined: no class has both positives and negatives.")
    return sum(areas) / len(areas)


def _area(score: Tensor, positive: Tensor) -> float | None:
    """Mann-Whitney U over (positives x negatives), from mean ranks."""
    p = int(positive.sum())
    n = positive.numel() - p
    if p == 0 or n == 0:
        return None
    _, group, counts = torch.unique(score, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    mean_rank = (last - (counts - 1) / 2)[group]
    return ((mean_rank[positive].sum() - p * (p + 1) / 2) / (p * n)).item()


METRICS = {"accuracy": accuracy, "f1-micro": f1_micro, "roc-auc": roc_auc}


def metric(name: str):
    """The metric of that name: ``f(logits, y) -> float``."""
    if name not in METRICS:
        raise unknown("metric", name, METRICS)
    return METRICS[name]
