"""Sampling designs: who is drawn among weighted candidates, and the scales that make sums unbiased.

====================  ===========================  ==========================  ========================
design                drawn                        scale                       size
====================  ===========================  ==========================  ========================
Poisson               each with min(1, c q)        1 / pi (Horvitz-Thompson)   n on average
with replacement      n draws by q                 m / (n q) (Hansen-Hurwitz)  n draws, fewer nodes
without replacement   one by one by q              Des Raj                     n exactly
====================  ===========================  ==========================  ========================

All take everybody, with scale 1, where at most n candidates have a positive weight, and never draw a
candidate of weight 0. Weights are counted in whole units (:mod:`graphdyn.kernels.poisson`): no order of
summation changes a draw. Shapes: M candidates, K drawn.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from graphdyn.kernels import poisson as kernel
from graphdyn.kernels.race import des_raj, race
from graphdyn.keys import Key


class Drawn(NamedTuple):
    """Who was drawn.

    Attributes:
        index: (K,) int64 places among the candidates.
        scale: (K,) float64 s: ``E sum s x = sum x`` over all candidates of positive weight.
        prob: (K,) float64 probability to be drawn; NaN without replacement: it has no closed form.
    """

    index: Tensor
    scale: Tensor
    prob: Tensor


def poisson(weight: Tensor, ids: Tensor, n: int, key: Key) -> Drawn:
    """Independent inclusion with pi = min(1, c q), the sum of pi being n.

    Args:
        weight: (M,) float64 q, not negative, in any unit.
        ids: (M,) int64 distinct ids.
        n: Expected number, at least 1.
        key: Randomness.
    """
    ends = torch.tensor([0, weight.numel()], device=weight.device)
    c = float(kernel.thresholds(ends, weight, n))
    index, pi = kernel.keep(weight, ids, c, key.bits)
    return Drawn(index, pi.reciprocal(), pi)


def without_replacement(weight: Tensor, ids: Tensor, n: int, key: Key) -> Drawn:
    """Draws one by one, each proportional to q among those that remain; see :func:`graphdyn.kernels.race.des_raj`.

    Arguments as those of :func:`poisson`; ``n`` is the exact number.
    """
    units = _units(weight)
    candidates = int((units > 0).sum())
    if candidates <= n:
        return _everybody(units)
    first = torch.topk(race(units, ids, key.bits), n, largest=False).indices
    scale = des_raj(units[first], int(units.sum()), candidates)
    return Drawn(first, scale, torch.full_like(scale, torch.nan))


class Wheel:
    """Draws with replacement, by inversion of the exact distribution function; prepared once, drawn often.

    Args:
        weight: (M,) float64 q, not negative, in any unit.

    Attributes:
        share: (M,) float64 q, adding up to 1.
    """

    def __init__(self, weight: Tensor):
        units = _units(weight)
        self._units, self._candidates = units, int((units > 0).sum())
        self._ends, self._total = units.cumsum(0), int(units.sum())
        self.share = units.double() / max(self._total, 1)

    def draw(self, n: int, key: Key) -> Drawn:
        """Draw n times, each keyed by its number.

        Args:
            n: At least 1.
            key: Randomness.
        """
        if self._candidates <= n:
            return _everybody(self._units)
        points = _below(self._total, torch.arange(n, device=self._ends.device), key)
        hits = torch.searchsorted(self._ends, points, right=True)
        index, times = torch.unique(hits, return_counts=True)
        q = self.share[index]
        return Drawn(index, times.double() / (n * q), at_least_once(q, n))


def at_least_once(q: Tensor, n: int) -> Tensor:
    """1 - (1 - q)^n by doubling, P(a + b) = P(a) + P(b) (1 - P(a)): no cancellation, the same on all devices."""
    out, power = torch.zeros_like(q), q
    while n:
        if n & 1:
            out = out + power * (1.0 - out)
        power = power + power * (1.0 - power)
        n >>= 1
    return out


def _units(weight: Tensor) -> Tensor:
    largest = float(weight.max()) if weight.numel() else 0.0
    return kernel.to_units(weight, kernel.unit_of(largest, weight.numel()))


def _everybody(units: Tensor) -> Drawn:
    index = torch.nonzero(units).flatten()
    one = torch.ones(index.numel(), dtype=torch.float64, device=index.device)
    return Drawn(index, one, one)


def _below(bound: int, ids: Tensor, key: Key) -> Tensor:
    """Uniform integers in [0, bound), bound < 2^62: the upper bits of the hash, again while too large."""
    width = (bound - 1).bit_length()
    out = torch.full_like(ids, bound)
    attempt = 0
    while bool((again := out >= bound).any()):
        word = key.fold("try", attempt).hash(ids[again])
        out[again] = ((word >> 1) & ((1 << 63) - 1)) >> (63 - width)
        attempt += 1
    return out
