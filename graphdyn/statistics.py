"""Statistics of independent draws: U-statistics of sets of gradients, ratios, averages over time.

Valid for draws that are independent and alike, at frozen weights. A set of m vectors enters as its Gram matrix of
inner products, which is all that its squared mean and the trace of its covariance need; leading dimensions
(groups of parameters) are carried along. Standard errors are those of the jackknife, written as *pseudo-values*
``m t - (m - 1) t_without_i``: their mean is the U-statistic itself, and standard errors and covariances of
several statistics are those of means of pseudo-values (Tukey 1958; Arvesen 1969 for U-statistics). Intervals
take Student's quantile with m - 1 degrees. Shapes: m draws, P numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from graphdyn.estimate import Estimate

CHUNK = 1 << 18  # numbers of a vector that are in float64 at a time


def inner(rows: Tensor, others: Tensor | None = None) -> Tensor:
    """(m, n) inner products of (m, P) with (n, P) vectors (by default with themselves), in float64."""
    others = rows if others is None else others
    pairs = zip(rows.split(CHUNK, 1), others.split(CHUNK, 1))
    return torch.stack([a.double() @ b.double().T for a, b in pairs]).sum(0)


def with_others(gram: Tensor) -> Tensor:
    """(..., m) mean inner product of each draw with the others, from (..., m, m)."""
    own = gram.diagonal(dim1=-2, dim2=-1)
    return (gram.sum(-1) - own) / (gram.shape[-1] - 1)


def mean_of(values: Tensor) -> Estimate:
    """The mean of (..., m) independent draws, or of pseudo-values."""
    m = values.shape[-1]
    return Estimate(values.mean(-1), values.std(-1) / m**0.5 if m > 1 else None, m)


def pairs_pseudo(kernel: Tensor) -> Tensor:
    """(..., m) pseudo-values of the mean of a symmetric (..., m, m) kernel over pairs of different draws.

    With r_i the mean over pairs that hold i and U the statistic, leaving i out gives
    ``(m U - 2 r_i) / (m - 2)``. Of two draws there is one pair, and nothing to leave out: NaN.
    """
    m = kernel.shape[-1]
    each = with_others(kernel)
    whole = each.mean(-1, keepdim=True)
    if m < 3:
        return torch.full_like(each, torch.nan)
    return m * whole - (m - 1) * (m * whole - 2 * each) / (m - 2)


def squared_mean(gram: Tensor) -> Estimate:
    """|E g|^2 without the noise in it, from the (..., m, m) Gram matrix: the mean of <g_i, g_j> over pairs.

    (A - Q) / (m (m - 1)) with A = |sum g|^2 and Q = sum |g|^2 (McCandlish et al. 2018, appendix A, in the form
    of a U-statistic). It may be negative. Its variance has a linear and a quadratic part (Hoeffding 1948); the
    jackknife counts the second twice, which matters where the mean is small beside the noise, so it is
    estimated by itself, from the doubly centred kernel, and taken out once.
    """
    m = gram.shape[-1]
    each = with_others(gram)
    value = each.mean(-1)
    if m < 3:
        return Estimate(value, None, m)
    jackknife = pairs_pseudo(gram).var(-1) / m
    quadratic = 2 * _quadratic(gram, each) / (m * (m - 1))
    return Estimate(value, torch.maximum(jackknife - quadratic, quadratic).sqrt(), m)


def _quadratic(gram: Tensor, each: Tensor) -> Tensor:
    """(...) variance of what is left of a kernel of pairs without its mean and its linear part.

    Residuals of ``k_ij = mean + a_i + a_j``, least squares over pairs i != j, divided by their number of
    degrees of freedom, m (m - 3) / 2; three draws leave none.
    """
    m = gram.shape[-1]
    if m < 4:
        return torch.zeros_like(each[..., 0])
    mean = each.mean(-1, keepdim=True)
    linear = (each - mean) * (m - 1) / (m - 2)
    rest = gram - mean[..., None] - linear[..., :, None] - linear[..., None, :]
    squares = rest.square().sum((-2, -1)) - rest.diagonal(dim1=-2, dim2=-1).square().sum(-1)
    return squares / (m * (m - 3))


def trace_pseudo(gram: Tensor) -> Tensor:
    """(..., m) pseudo-values of tr Cov g: the mean of |g_i - g_j|^2 / 2 over pairs."""
    return gram.diagonal(dim1=-2, dim2=-1) - pairs_pseudo(gram)


def trace_of_covariance(gram: Tensor) -> Estimate:
    """The trace of Cov g, unbiased, from the (..., m, m) Gram matrix: (Q - A / m) / (m - 1)."""
    m = gram.shape[-1]
    value = gram.diagonal(dim1=-2, dim2=-1).mean(-1) - with_others(gram).mean(-1)
    return Estimate(value, trace_pseudo(gram).std(-1) / m**0.5 if m > 2 else None, m)


def covariance_of(a: Tensor, b: Tensor) -> Tensor:
    """(...) covariance of the means of two (..., m) sets of pseudo-values of the same draws."""
    m = a.shape[-1]
    centred = (a - a.mean(-1, keepdim=True)) * (b - b.mean(-1, keepdim=True))
    return centred.sum(-1) / (m * (m - 1))


def ratio(top: Tensor, bottom: Tensor, variances: tuple[Tensor, Tensor, Tensor]) -> Estimate:
    """``top / bottom`` by the delta method: r^2 (s_t^2 / t^2 + s_b^2 / b^2 - 2 s_tb / (t b)).

    Args:
        top: (...) an unbiased estimate.
        bottom: (...) another. Where it is not positive the ratio is infinite: as large as you like.
        variances: (...) of ``top``, of ``bottom``, and their covariance.

    Returns:
        The ratio; its standard error is meant for denominators of several of their own standard errors.
    """
    tops, bottoms, both = variances
    known = bottom > 0
    safe = torch.where(known, bottom, 1.0)
    r = top / safe
    variance = (tops - 2 * r * both + r.square() * bottoms) / safe.square()
    se = torch.where(known, variance.clamp(min=0).sqrt(), torch.inf)
    return Estimate(torch.where(known, r, torch.inf), se)


def weighted_line(x: Tensor, y: Tensor, se: Tensor) -> tuple[Estimate, Estimate, Tensor]:
    """Least squares of ``y = c + a x`` with known errors: (c, a, misfit).

    Args:
        x: (n,) n at least 3.
        y: (..., n).
        se: (..., n) standard errors of y, positive.

    Returns:
        c and a with the errors that follow from ``se``; chi^2 / (n - 2), about 1 if the line holds.
    """
    n, weight = x.shape[-1], se.square().reciprocal()
    total = weight.sum(-1)
    centre = (weight * x).sum(-1) / total
    apart = x - centre[..., None]
    spread = (weight * apart.square()).sum(-1)
    slope = (weight * apart * y).sum(-1) / spread
    middle = (weight * y).sum(-1) / total
    constant = middle - slope * centre
    rest = y - constant[..., None] - slope[..., None] * x
    constant_se = (1 / total + centre.square() / spread).sqrt()
    misfit = (weight * rest.square()).sum(-1) / (n - 2)
    return Estimate(constant, constant_se, n), Estimate(slope, spread.rsqrt(), n), misfit


def jackknife(without: Tensor) -> Tensor:
    """(...) standard error of any smooth statistic, from its (m, ...) values with each of m draws left out."""
    m = without.shape[0]
    return ((without - without.mean(0)).square().sum(0) * (m - 1) / m).sqrt()


def quotient(tops: Tensor, bottoms: Tensor) -> Estimate:
    """Sum of tops over sum of bottoms, of (m, ...) independent draws of pairs, with the jackknife's error."""
    m = tops.shape[0]
    top, bottom = tops.sum(0), bottoms.sum(0)
    if m < 2:
        return Estimate(top / bottom, None, m)
    return Estimate(top / bottom, jackknife((top - tops) / (bottom - bottoms)), m)


class Average:
    """Exponential average over time of numbers and of the (co)variances of their errors.

    De-biased by its own counter, which counts what was added and nothing else. The variance is that of
    measurements that err independently of each other; that what is measured moves is not in it.

    Args:
        keep: Weight of the past in a step, from 0 to below 1; 0 keeps the last value alone.
    """

    def __init__(self, keep: float):
        self.keep, self.count = keep, 0
        self.mean: Tensor | None = None
        self.noise: Tensor | None = None

    def add(self, values: Tensor, noise: Tensor) -> None:
        """One measurement.

        Args:
            values: Any shape.
            noise: Any shape; (co)variances of their errors.
        """
        keep = self.keep
        mean = torch.zeros_like(values) if self.mean is None else self.mean
        own = torch.zeros_like(noise) if self.noise is None else self.noise
        self.mean = keep * mean + (1 - keep) * values
        self.noise = keep**2 * own + (1 - keep) ** 2 * noise
        self.count += 1

    def read(self) -> tuple[Tensor, Tensor]:
        """The average, and the (co)variance of its error."""
        assert self.mean is not None
        assert self.noise is not None
        seen = 1 - self.keep**self.count
        return self.mean / seen, self.noise / seen**2

    def state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        own = {"mean": self.mean, "noise": self.noise}
        return {"count": self.count, **{n: t for n, t in own.items() if t is not None}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state` gave."""
        self.count, self.mean, self.noise = state["count"], state.get("mean"), state.get("noise")


class RecentMean:
    """Mean over the latest half to three quarters of all that was added: what came first is forgotten.

    Windows begin at powers of two, so that two sums are all the memory it needs; after n values it is the mean
    of more than n / 2 - 1 of them.
    """

    def __init__(self) -> None:
        self.added = self.count = 0
        self._sums: list[Tensor | float] = [
            0.0,
            0.0,
        ]  # since the last power of two but one; since the last

    def add(self, values: Tensor) -> Tensor:
        """One measurement, always of the same shape; the mean with it."""
        self._sums = [total + values for total in self._sums]
        self.added += 1
        self.count += 1
        if self.added & (self.added - 1) == 0:
            self._sums, self.count = [self._sums[1], 0.0], self.added - self.added // 2
        return self.mean

    @property
    def mean(self) -> Tensor:
        """The mean now; of something."""
        assert isinstance(self._sums[0], Tensor)
        return self._sums[0] / self.count

    def state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"added": self.added, "count": self.count, "sums": list(self._sums)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state` gave."""
        self.added, self.count, self._sums = state["added"], state["count"], list(state["sums"])
