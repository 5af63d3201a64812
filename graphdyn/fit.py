"""Whether a model can be trained under a sampler: what the sampler promises, and what the model needs."""

from __future__ import annotations

from torch import nn

from graphdyn.errors import InputError
from graphdyn.models import GAT, GATv2
from graphdyn.models.sage import SAGEConv
from graphdyn.samplers import Full, Sampler

# Estimators whose expectation is the aggregate of the full graph, exactly or in the limit.
UNBIASED = ("ht", "hajek", "desraj")


def check_fit(sampler: Sampler, model: nn.Module) -> None:
    """Refuse a sampler whose weights mean nothing to a model.

    Args:
        sampler: Recipe.
        model: Of this package; others are taken as they are.

    Raises:
        InputError: Saying why, and what would do instead.
    """
    if _exact(sampler):
        return
    estimator = getattr(sampler, "estimator", "unit")
    maximum = any(isinstance(m, SAGEConv) and m.aggregator == "max" for m in model.modules())
    if maximum and estimator in UNBIASED:
        raise InputError(
            f"the estimator '{estimator}' weighs the messages of a sample, and the maximum of sage "
            "knows no weights and has no unbiased estimate; use the estimator 'unit', the aggregator "
            "mean or sum, or the sampler 'full'."
        )
    if isinstance(model, (GAT, GATv2)) and estimator == "desraj":
        raise InputError(
            "the estimator 'desraj' gives some messages negative weights, and attention takes their "
            "logarithm; use another estimator or sampler (neighbor, labor), or a model that sums its "
            "messages (gcn, sage)."
        )


def _exact(sampler: Sampler) -> bool:
    """Whether every message of the full graph arrives, with weight 1."""
    fanouts = getattr(sampler, "fanouts", None)
    return isinstance(sampler, Full) or (bool(fanouts) and all(k == -1 for k in fanouts))
