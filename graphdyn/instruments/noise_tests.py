"""NoiseTests: is a batch large enough? The tests of adaptive batch sizes, on batches as units.

Valid for units u_j that are alike and independent: n batches at frozen weights. Single targets of a graph are no such
units, since they share neighbourhoods; a batch of b targets is, and then every "batch size" below is n, and
thresholds (usually theta = 0.9, nu = 5.84 = tan 80 degrees) refer to a batch of n units. Formulas: norm test, Byrd,
Chin, Nocedal & Wu 2012; inner product and orthogonality tests, Bollapragada, Byrd & Nocedal 2018; diversity, Yin et
al. 2018; GSNR, Liu et al. 2020; CABS, Balles, Romero & Hennig 2017; evidence, Mahsereci, Balles, Lassner & Hennig
2017. As Cockpit (Schneider, Dangel & Hennig 2021) has them, up to the corrections named below.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from graphdyn.errors import InputError
from graphdyn.estimate import Estimate, Invalid, Reading
from graphdyn.instruments.by_group import by_group, each_group, grams
from graphdyn.instruments.instrument import Instrument, Need
from graphdyn.instruments.noise import noise_of_gram, target_or_why
from graphdyn.schedule import Schedule
from graphdyn.snapshot import Snapshot
from graphdyn.statistics import jackknife, mean_of, ratio

LEAST = 5  # units: the correction of the mean GSNR needs four, its jackknife one more


class NoiseTests(Instrument):
    r"""Ratios of noise and signal, by group and in total; g is the mean of the n units.

    ===================  =====================================================  =========================
    ``norm``             theta^2 = tr Cov u / (n \|g\|^2)                         pass below 0.81
    ``inner``            theta^2 = Var(u^T g) / (n \|g\|^4)                       pass below 0.81
    ``orthogonal``       nu^2 = tr Cov(u - (u^T g / \|g\|^2) g) / (n \|g\|^2)      pass below 34; norm - inner
    ``diversity``        sum \|u\|^2 / \|sum u\|^2; times n: 1 + (n - 1) norm      1 / n to infinity
    ``signal_to_noise``  \|E u\|^2 / tr Cov u; signed, unbiased above and below
    ``gsnr``             mean over parameters of (E u)^2 / Var u; signed
    ``evidence``         - n gsnr                                               stop above 0
    ``dead``             share of parameters whose u are all alike, left out     of the two above
    ``cabs``             b* = lr tr Sigma / L, in targets; total alone           the batch size to take
    ===================  =====================================================  =========================

    The first four are plug-in numbers, as published: \|g\|^2 holds the noise of n units. ``gsnr`` and
    ``evidence`` (published as 1 - n mean g^2 / s^2) are corrected as for Gaussian units, for which g^2 / s^2 is
    (n - 1) / (n - 3) (GSNR + 1 / n) on average. Standard errors: jackknife over units; 0 signal has gsnr and evidence 0.
    ``cabs`` is given for SGD without momentum and decay, a uniform sample of targets and a loss whose least
    value is about 0; it costs n exact forward passes.

    Args:
        m: n, batches that are units; by default as the level says.
        every: When.

    Raises:
        InputError: If there are fewer than 5 units.
    """

    needs = Need.PROBLEM
    levels = ({"m": 8}, {"m": LEAST})
    cost = 16.0  # with the exact passes of CABS

    def __init__(self, *, m: int | None = None, every: Schedule | int | None = None):
        super().__init__(every=every, m=m)
        if m is not None and m < LEAST:
            raise InputError(f"m is {m}; the tests need at least {LEAST} batches.")

    def measure(self, s: Snapshot) -> Reading:
        """See :class:`NoiseTests`."""
        m = self.option("m")
        rows = s.probe(m).grads[:, 0]
        if bool((rows == rows[:1]).all()):
            raise Invalid("batches do not differ, so there is no noise to test.")
        gram = grams(s.groups, rows)
        found: dict[Any, Any] = dict(by_group(s.groups, **of_gram(gram)))
        value = each_group(s.groups, rows, gsnr)
        error = jackknife(each_group(s.groups, rows, without_each).T)
        found |= by_group(
            s.groups, gsnr=Estimate(value, error, m), evidence=Estimate(-m * value, m * error, m)
        )
        dead = each_group(s.groups, rows, lambda r: (~alive(r)).double().mean())
        found |= by_group(s.groups, dead=Estimate(dead))
        there = {
            key: e for key, e in found.items() if not math.isnan(e.value)
        }  # of what is not all 0
        return there | {"cabs": self._cabs(s, gram)}

    def _cabs(self, s: Snapshot, gram: Tensor) -> Estimate | Invalid:
        rate = plain_rate(s.optimizer)
        if isinstance(rate, Invalid):
            return rate
        target = target_or_why(noise_of_gram(gram), s.problem, "probe")
        if isinstance(target, Invalid):
            return target
        try:
            losses = mean_of(exact_losses(s, gram.shape[-1]))
        except Invalid as reason:
            return reason
        top, error = (rate * torch.as_tensor(v)[-1] for v in target.trace[:2])
        bottom, below = (torch.as_tensor(v) for v in losses[:2])
        return ratio(top, bottom, (error.square(), below.square(), torch.zeros_like(top)))


def of_gram(gram: Tensor) -> dict[str, Estimate]:
    """The tests that inner products of the units, (..., n, n), are enough for."""
    n = gram.shape[-1]
    values = _tests(gram, n)
    keep = [[j for j in range(n) if j != i] for i in range(n)]
    left = [_tests(gram[..., rows, :][..., rows], n) for rows in keep]
    errors = {name: jackknife(torch.stack([v[name] for v in left])) for name in values}
    noise = noise_of_gram(gram)
    variances = [torch.as_tensor(e.se).square() for e in (noise.square, noise.trace)]
    assert noise.both is not None
    signal = ratio(
        torch.as_tensor(noise.square.value),
        torch.as_tensor(noise.trace.value),
        (variances[0], variances[1], noise.both),
    )
    found = {name: Estimate(values[name], errors[name], n) for name in values}
    return {**found, "signal_to_noise": signal._replace(n=n)}


def _tests(gram: Tensor, n: int) -> dict[str, Tensor]:
    """Of a batch of n units, from the (..., k, k) inner products of k of them."""
    k = gram.shape[-1]
    own = gram.diagonal(dim1=-2, dim2=-1)
    along = gram.mean(-1)  # u_j^T g
    square = along.mean(-1)  # |g|^2
    rest = own - along.square() / square[..., None]  # |u_j - its part along g|^2, of mean 0
    scale = (k - 1) * n * square
    return {
        "norm": (own.sum(-1) - k * square) / scale,
        "inner": along.var(-1) / (n * square.square()),
        "orthogonal": rest.sum(-1) / scale,
        "diversity": own.mean(-1) / (n * square),
    }


def gsnr(rows: Tensor) -> Tensor:
    """Mean over the parameters that are not dead of (E u)^2 / Var u, from (n, p) units."""
    n = rows.shape[0]
    live = rows[:, alive(rows)].double()
    return (live.mean(0).square() / live.var(0)).mean() * (n - 3) / (n - 1) - 1 / n


def alive(rows: Tensor) -> Tensor:
    """(p,) where (n, p) units are not all the same."""
    return (rows != rows[:1]).any(0)


def without_each(rows: Tensor) -> Tensor:
    """(n,) the mean GSNR with each of n units left out."""
    n = rows.shape[0]
    return torch.stack([gsnr(torch.cat([rows[:i], rows[i + 1 :]])) for i in range(n)])


def plain_rate(optimizer: torch.optim.Optimizer) -> float | Tensor | Invalid:
    """The rate of SGD without momentum and decay, or why CABS has none."""
    group = optimizer.param_groups[0]
    plain = type(optimizer) is torch.optim.SGD and len(optimizer.param_groups) == 1
    if plain and not group["momentum"] and not group["weight_decay"]:
        return group["lr"]
    return Invalid("CABS is derived for SGD with one rate, without momentum and weight decay.")


def exact_losses(s: Snapshot, m: int) -> Tensor:
    """(m,) losses of the probe's batches under exact neighbourhoods.

    Raises:
        Invalid: If the problem does not know these.
    """
    problem = s.given()
    batches = [problem.exact(s.batch(i)) for i in range(m)]
    with s.isolated(), torch.no_grad():
        return torch.stack([problem.loss(s.model, batch) for batch in batches]).double()
