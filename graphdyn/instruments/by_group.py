"""Sets of gradients by group of parameters: Gram matrices, and readings made of what is computed from them.

Whatever is a sum over coordinates is measured for each group and, last, for all of them: G + 1 in all.
Shapes: m gradients, P parameters, G groups.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from graphdyn.estimate import Estimate
from graphdyn.groups import Groups
from graphdyn.statistics import inner

Measured = dict[str | tuple[str, str], Estimate]


def grams(groups: Groups, rows: Tensor, others: Tensor | None = None) -> Tensor:
    """(G + 1, m, n) inner products of (m, P) with (n, P) vectors, by default with themselves; float64."""
    pieces = groups.split(rows)
    second = pieces if others is None else groups.split(others)
    each = torch.stack([inner(pieces[name], second[name]) for name in groups.names])
    return torch.cat([each, each.sum(0, keepdim=True)])


def each_group(groups: Groups, rows: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """(G + 1, ...) a function of the (m, p) coordinates of each group, and of all (m, P)."""
    return torch.stack([function(p) for p in (*groups.split(rows).values(), rows)])


def by_group(groups: Groups, **estimates: Estimate) -> Measured:
    """Readings under their names.

    Args:
        groups: Gives names.
        **estimates: Of (G + 1) tensors, the total last.

    Returns:
        An estimate by (name, group), and under its plain name for all.
    """
    found: Measured = {}
    for name, estimate in estimates.items():
        keys = [*((name, group) for group in groups.names), name]
        found |= {key: at(estimate, i) for i, key in enumerate(keys)}
    return found


def at(estimate: Estimate, i: int) -> Estimate:
    """One of (G + 1) estimates; what is the same for all stays."""
    value, se, n, pred = (v[i] if isinstance(v, Tensor) and v.ndim else v for v in estimate)
    return Estimate(value, se, n, pred)  # pyright: ignore[reportArgumentType]
