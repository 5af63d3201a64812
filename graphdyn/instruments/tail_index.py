"""TailIndex: how heavy the tails of gradient noise are, as the index alpha of a stable law; 2 is Gaussian.

Valid for one number observed many times, independent and alike up to a slow drift: a fixed random projection of the
gradient, or its norm, over time or over batches at fixed weights. Never for the coordinates of one vector
pooled: Gaussians of unequal scales then look like alpha = 0.9. Source: Mohammadi, Mohammadpour & Ogata 2015,
corollary 2.4 ("On estimating the tail index and the spectral measure of multivariate alpha-stable
distributions"), as in Simsekli, Sagun & Gurbuzbalaban 2019 ("A Tail-Index Analysis of Stochastic Gradient
Noise"). With K = K1 K2 numbers X and their K2 sums Y of K1 each,

    1 / alpha = (mean log|Y| - mean log|X|) / log K1.

Differences of successive numbers, two by two and each used once, take the mean and a slow drift away and keep the
index: that of X - X' is that of X. Far from stable laws the number is one of the law and of K1: Student's t with
3 degrees gives 1.8 at K1 = 100, and tends to 2. Shapes: G groups, W numbers in a window.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from graphdyn.errors import InputError
from graphdyn.estimate import Estimate, Invalid, Reading
from graphdyn.instruments.by_group import by_group
from graphdyn.instruments.instrument import Instrument, Need
from graphdyn.keys import Key
from graphdyn.schedule import Schedule
from graphdyn.snapshot import Snapshot

LEAST = 64  # numbers of a window
BATCHES = 128  # of a measurement over batches


class TailIndex(Instrument):
    """Index of stability of the noise of a gradient, by group and in total.

    ==================  ===========================================================================
    ``projection``      alpha of <r, g>, r a fixed random direction; 2 for Gaussian noise
    ``norm``            alpha of |g|
    ``surrogate``       the same estimator on as many Gaussian numbers, 0 at the same places: what
                        ``projection`` has to be compared with
    ``zeros``           share of differences that were exactly 0 and were left out
    ==================  ===========================================================================

    Standard errors: of the two means, by the delta method; about 0.2 at the default window, 0.6 at 256.
    A scale that drifts from one block of sums to the next cancels; one that jumps within a block looks
    heavy. Gradients are those of the step, so clipping bounds their tails.

    Args:
        source: ``"steps"``: over training, a number every measurement; costs no gradient, and reads once
            every ``window`` measurements. ``"batches"``: over 128 batches at the present weights.
        window: W, gradients that one reading over steps is made of; even. Half as many differences.
        every: When; by default every step, or every 5000 for batches.

    Raises:
        InputError: If the window is odd or below 64, or the source is unknown.
    """

    def __init__(
        self,
        source: str = "steps",
        *,
        window: int = 2048,
        every: Schedule | int | None = None,
    ):
        steps = source == "steps"
        super().__init__(every=(1 if steps else 5000) if every is None else every)
        if source not in ("steps", "batches"):
            raise InputError(f"the source is '{source}'; expected 'steps' or 'batches'.")
        if window < LEAST or window % 2:
            raise InputError(f"window is {window}; give an even number of at least {LEAST}.")
        self.source, self.window = source, window
        self.needs = Need.NOTHING if steps else Need.PROBLEM
        self.cost = 0.0 if steps else float(BATCHES)
        self.count = 0
        self.numbers: Tensor | None = None
        self._direction: Tensor | None = None

    def measure(self, s: Snapshot) -> Reading:
        """See :class:`TailIndex`."""
        if self.source == "batches":
            return self._read(s, self._over_batches(s))
        if s.step == 0:
            raise Invalid("no step was taken yet.")
        now = self._numbers(s, s.grad)
        if self.numbers is None:
            self.numbers = now.new_zeros(*now.shape, self.window)
        self.numbers[..., self.count % self.window] = now
        self.count += 1
        return {} if self.count % self.window else self._read(s, self.numbers)

    def state(self) -> dict[str, Any]:
        """See :meth:`graphdyn.Instrument.state`."""
        own = {} if self.numbers is None else {"numbers": self.numbers}
        return {"count": self.count, **own}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See :meth:`graphdyn.Instrument.restore`."""
        self.count, self.numbers = state["count"], state.get("numbers")

    def _over_batches(self, s: Snapshot) -> Tensor:
        """(2, G + 1, W) numbers of new batches, none of which is kept."""
        keys = [s.key.fold("tail", i) for i in range(BATCHES)]
        grads = (s.gradients(s.given().draw(key), key=key) for key in keys)
        return torch.stack([self._numbers(s, grad) for grad in grads], -1)

    def _numbers(self, s: Snapshot, grad: Tensor) -> Tensor:
        """(2, G + 1) projections and norms."""
        if self._direction is None:
            rng = s.key.at(epoch=0, step=0).fold("direction").generator()
            self._direction = torch.randn(s.groups.size, generator=rng).to(grad.device)
        parts = (s.groups.dots(self._direction, grad), s.groups.dots(grad, grad))
        along, square = (torch.stack([*p.values()]) for p in parts)
        along, square = (torch.cat([p, p.sum(0, keepdim=True)]) for p in (along, square))
        return torch.stack([along, square.sqrt()])

    def _read(self, s: Snapshot, numbers: Tensor) -> Reading:
        along, norms = numbers[..., 1::2] - numbers[..., ::2]  # (G + 1, W / 2) each
        (projection, zeros), (norm, _) = tail_index(along), tail_index(norms)
        surrogate, _ = tail_index(gaussian_like(along, s.key.fold("surrogate")))
        return dict(
            by_group(
                s.groups,
                projection=projection._replace(pred=2.0),
                norm=norm,
                surrogate=surrogate._replace(pred=2.0),
                zeros=Estimate(zeros),
            )
        )


def tail_index(x: Tensor) -> tuple[Estimate, Tensor]:
    """(n) alpha of each row of (n, K) numbers that are alike around 0, and the share of zeros left out.

    Zeros go to the end of a row and are masked there, so that nobody waits for a device to count them. K1 is
    the root of K, rounded down.
    """
    zero = x == 0
    packed = x.gather(-1, zero.to(torch.int8).argsort(dim=-1, stable=True)).double()
    there = (~zero).sum(-1, keepdim=True)
    block = math.isqrt(x.shape[-1])
    sums = packed[..., : x.shape[-1] // block * block].unflatten(-1, (-1, block))
    full = torch.arange(sums.shape[-2], device=x.device) < there // block  # blocks without a zero
    inside = full[..., None].expand(sums.shape)
    small = _log_mean(sums.flatten(-2), inside.flatten(-2))
    big = _log_mean(sums.sum(-1), full)
    inverse = (big[0] - small[0]) / math.log(block)
    alpha = inverse.reciprocal()
    se = alpha.square() * (big[1] + small[1]).sqrt() / math.log(block)
    return Estimate(alpha, se, x.shape[-1]), zero.double().mean(-1)


def _log_mean(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """(n) mean of log|x| where the mask is, and its squared standard error."""
    count = mask.sum(-1)
    logs = torch.where(mask, x.abs().clamp(min=1e-300).log(), 0.0)
    mean = logs.sum(-1) / count
    apart = torch.where(mask, logs - mean[..., None], 0.0)
    return mean, apart.square().sum(-1) / (count * (count - 1))


def gaussian_like(x: Tensor, key: Key) -> Tensor:
    """(n, K) normal numbers, 0 where (n, K) numbers are; a scale would cancel."""
    normal = torch.randn(x.shape, generator=key.generator(), dtype=torch.float64)
    return torch.where(x == 0, 0.0, normal.to(x.device))
