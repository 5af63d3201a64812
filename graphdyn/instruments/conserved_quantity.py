"""ConservedQuantity: what rescaling symmetries keep constant, or let decay at a known rate.

Valid for generators of mixed signs (one part of the weights may grow as another shrinks,
:class:`graphdyn.SymmetryMap`): ReLU layers without norms, attention beside its weight, affine parameters of norms beside
the next layer. Under gradient flow with weight decay lambda their quantity decays as ``exp(-2 lambda t)``. Derived here:
by Euler ``sum_p s_p <g_p, w_p> = 0``, so a step ``w' = (1 - eta lambda) w - eta g`` of SGD without momentum leaves no cross
term, and the recursion is exact however large the step. States that a memory holds do not scale with the weights:
with histories the prediction misses by what they add to the gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from graphdyn.estimate import Estimate, Invalid, Number, Reading
from graphdyn.groups import Groups
from graphdyn.instruments.instrument import Instrument, Need
from graphdyn.instruments.rules import rule_or_none
from graphdyn.snapshot import Snapshot
from graphdyn.symmetry import Generator, label


class ConservedQuantity(Instrument):
    """One reading for each rescaling generator s, named by its parameters and signs.

    =======================  =====  ====================================================================================
    reading                  unit   what it is
    =======================  =====  ====================================================================================
    ``quantity``, generator  |w|^2  ``Q = sum_p s_p |w_p|^2`` after the last step. Prediction, for SGD without momentum:
                                    ``(1 - eta lambda)^2 Q + eta^2 sum_p s_p |g_p|^2`` from the Q before it; exact up to
                                    rounding and the eps of norms
    ``balance``, generator   1      ``Q / sum_p |s_p| |w_p|^2``, from -1 to 1; weight decay takes it towards what noise
                                    feeds it
    =======================  =====  ====================================================================================
    """

    needs = Need.UPDATE | Need.SYMMETRY
    bands = {"quantity": 1e-3}

    def setup(self, s: Snapshot) -> None:
        """Find the generators.

        Raises:
            Invalid: If there are none, or nobody knows.
        """
        if not s.find_symmetry().rescaling:
            raise Invalid(
                "no part of this model can grow as another shrinks, so nothing is conserved."
            )

    def measure(self, s: Snapshot) -> Reading:
        """See the class."""
        found: dict[str | tuple[str, str], Number | Estimate] = {}
        for generator in s.find_symmetry().rescaling:
            name, q = label(generator), weighted(generator, s.groups, s.weights)
            size = weighted({n: abs(c) for n, c in generator.items()}, s.groups, s.weights)
            found["quantity", name] = Estimate(q, pred=_predicted(s, generator))
            found["balance", name] = q / size
        return found


def weighted(generator: Generator, groups: Groups, flat: Tensor) -> Tensor:
    """``sum_p s_p |v_p|^2`` of a (P,) vector, in float64."""
    parts = [c * flat[groups.places[n]].double().square().sum() for n, c in generator.items()]
    return torch.stack(parts).sum()


def recursion(q: Tensor, squares: Tensor, lr: Number, weight_decay: float) -> Tensor:
    """Q after a step of SGD from Q before it and ``sum_p s_p |g_p|^2``."""
    return (1 - lr * weight_decay) ** 2 * q + lr**2 * squares


def _predicted(s: Snapshot, generator: Generator) -> Tensor | None:
    rule = rule_or_none(s, [*generator])
    if rule is None or rule.kind != "sgd" or rule.momentum:
        return None
    assert s.before is not None
    q, squares = (weighted(generator, s.groups, v) for v in (s.before, s.grad))
    return recursion(q, squares, rule.lr, rule.weight_decay)
