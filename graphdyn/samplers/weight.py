"""Estimator weights: from what a sampler drew to the factor of each edge.

=======  =====================================================  ======================================
rule     scale s of an edge u -> v                              bias
=======  =====================================================  ======================================
ht       what the draw says: 1/pi, m/(n q), Des Raj             none
hajek    that, times sum a / sum s a over the row               O(1/n); empty rows stay empty
unit     1                                                      loses the mass that was not drawn
=======  =====================================================  ======================================

Horvitz-Thompson, Hajek: see Sarndal, Swensson & Wretman 1992, "Model Assisted Survey Sampling",
sections 2.8 and 5.7.
"""

from __future__ import annotations

import torch
from torch import Tensor

from graphdyn.errors import unknown
from graphdyn.kernels.draw import Draw
from graphdyn.samplers.structure import Structure

RULES = ("ht", "hajek", "unit")


def check_rule(rule: str, known: tuple[str, ...] = RULES) -> None:
    """Raise :class:`graphdyn.errors.InputError` for an estimator that a sampler does not have."""
    if rule not in known:
        raise unknown("estimator", rule, known)


def apply_rule(rule: str, draw: Draw, structure: Structure, dst: Tensor) -> Draw:
    """The draw with the scales of a rule.

    Args:
        rule: One of :data:`RULES`.
        draw: With the scales of the design.
        structure: What was drawn from.
        dst: (D,) targets of the draw.

    Returns:
        The draw with new scales and the design's inclusion probabilities.
    """
    if rule == "ht" or draw.scale is None:
        return draw
    prob = draw.scale.reciprocal() if draw.prob is None else draw.prob
    if rule == "unit":
        return draw._replace(scale=None, prob=prob)
    return draw_with_rows(draw, structure, structure.row_sum[dst])._replace(prob=prob)


def draw_with_rows(draw: Draw, structure: Structure, total: Tensor) -> Draw:
    """The draw with scales such that the rows of ``s a`` add up to given numbers.

    Args:
        draw: With the scales of the design.
        structure: What was drawn from.
        total: (D,) float64. Rows whose drawn values add up to 0, empty ones among them, stay.

    Returns:
        The draw with new scales.
    """
    assert draw.scale is not None
    row = torch.repeat_interleave(draw.indptr.diff())
    mass = structure.values[draw.edge.long()].double() * draw.scale.double()
    sampled = torch.zeros_like(total).index_add_(0, row, mass)
    factor = torch.where(sampled != 0, total / sampled, 1.0)
    return draw._replace(scale=(draw.scale * factor[row]).float())
