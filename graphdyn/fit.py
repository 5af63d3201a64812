"""Whether a model can be trained under a sampler: what the sampler promises, and what the model needs."""

from __future__ import annotations

from torch import nn

from graphdyn.errors import InputError
from graphdyn.models import GraphUNet
from graphdyn.models.sage import SAGEConv
from graphdyn.samplers import Full, Sampler

# Estimators that are weights of messages; without these weights they estimate something else.
WEIGHTED = ("ht", "hajek")


def check_fit(sampler: Sampler, model: nn.Module) -> None:
    """Refuse a sampler whose weights mean nothing to a model, or whose batches are another graph to it.

    Models that sum their messages, or attend to them, use every positive weight. A maximum knows none. A model
    that pools the graph needs all of it.

    Args:
        sampler: Recipe.
        model: Of this package; others are taken as they are.

    Raises:
        InputError: Saying why, and what would do instead.
    """
    if isinstance(model, GraphUNet) and not isinstance(sampler, Full):
        raise InputError(
            f"graph-unet pools the whole graph, and a batch of {type(sampler).__name__} would be pooled to "
            "another one; use the sampler 'full'."
        )
    estimator = getattr(sampler, "estimator", None)
    if estimator not in WEIGHTED or _exact(sampler):
        return
    if any(isinstance(m, SAGEConv) and m.aggregator == "max" for m in model.modules()):
        raise InputError(
            f"the estimator '{estimator}' weighs the messages of a sample, but the maximum of sage "
            "knows no weights and has no unbiased estimate; use the estimator 'unit', the aggregator "
            "mean or sum, or the sampler 'full'."
        )


def _exact(sampler: Sampler) -> bool:
    """Whether every message of the full graph arrives, with weight 1."""
    fanouts = getattr(sampler, "fanouts", None)
    return isinstance(sampler, Full) or (bool(fanouts) and all(k == -1 for k in fanouts))
