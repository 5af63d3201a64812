"""Optimisers and schedules of torch.optim by name, with weight decay by parameter group."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from graphdyn.errors import InputError, unknown

# LBFGS evaluates the loss several times a step through a closure: another kind of loop than ours.
_NEEDS_CLOSURE = {"lbfgs"}


Groups = dict[str, list[nn.Parameter]]


def optimizer_names() -> dict[str, Callable[..., torch.optim.Optimizer]]:
    """Every usable optimiser of this torch by lower-case name."""
    found = {
        name.lower(): kind
        for name, kind in vars(torch.optim).items()
        if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)
    }
    return {k: v for k, v in sorted(found.items()) if k not in _NEEDS_CLOSURE | {"optimizer"}}


def build_optimizer(
    model: nn.Module,
    name: str = "adam",
    *,
    lr: float = 0.01,
    weight_decay: float = 0.0,
    weight_decay_for: Mapping[str, float] | None = None,
    **options: Any,
) -> torch.optim.Optimizer:
    """An optimiser over ``model.parameter_groups()`` (over all parameters for a foreign model).

    Args:
        model: Its parameter groups give the names that ``weight_decay_for`` may use.
        name: Name in torch.optim, any case.
        lr: Learning rate.
        weight_decay: Decay of groups not named in ``weight_decay_for``.
        weight_decay_for: Decay by group name.
        **options: Passed on to the optimiser.

    Returns:
        The optimiser; every group carries its ``name``.

    Raises:
        InputError: If the name, a group or an option is unknown.
    """
    kinds = optimizer_names()
    if name.lower() not in kinds:
        raise unknown("optimiser", name, kinds)
    grouped: Callable[[], Groups] | None = getattr(model, "parameter_groups", None)
    groups: Groups = grouped() if grouped else {"all": list(model.parameters())}
    decay_for = dict(weight_decay_for or {})
    for group in decay_for:
        if group not in groups:
            raise unknown("parameter group", group, groups)
    parts = [
        {"params": params, "name": group, "weight_decay": decay_for.get(group, weight_decay)}
        for group, params in groups.items()
        if params
    ]
    try:
        return kinds[name.lower()](parts, lr=lr, **options)
    except (TypeError, ValueError) as error:
        raise InputError(f"optimiser {name} refused its options: {error}.") from None


def build_schedule(optimizer: torch.optim.Optimizer, name: str | None, **options: Any):
    """A learning-rate schedule of torch.optim.lr_scheduler, or ``None`` without a name.

    Raises:
        InputError: If the name or an option is unknown.
    """
    if name is None:
        return None
    module = torch.optim.lr_scheduler
    kinds = {
        key.lower(): kind
        for key, kind in vars(module).items()
        if isinstance(kind, type) and issubclass(kind, module.LRScheduler)
    }
    kinds.pop("lrscheduler", None)
    kinds.pop("_lrscheduler", None)
    if name.lower() not in kinds:
        raise unknown("schedule", name, sorted(kinds))
    try:
        return kinds[name.lower()](optimizer, **options)
    except (TypeError, ValueError) as error:
        raise InputError(f"schedule {name} refused its options: {error}.") from None


def advance(schedule: Any, loss: float) -> None:
    """One epoch of a schedule; ReduceLROnPlateau reads the validation loss, the others nothing."""
    if schedule is None:
        return
    if isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
        schedule.step(loss)
    else:
        schedule.step()
