"""NoiseScale: how many targets a batch must have before its noise is no longer larger than its signal.

``B_simple = tr Sigma / |grad L|^2`` (McCandlish et al. 2018, "An Empirical Model of Large-Batch Training",
section 2.2). Valid as a statement about batch sizes where noise goes as 1 / b and gradients are unbiased; sampled
neighbourhoods add a bias that does not fall with b, which the denominator then holds, so read it beside
``bias2`` of :class:`graphdyn.SamplerMSE`. Numerator and denominator are averaged over time each by itself and then
divided: a mean of ratios is larger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from graphdyn.errors import InputError
from graphdyn.estimate import Estimate, Invalid, Reading
from graphdyn.instruments.by_group import Measured, by_group, grams
from graphdyn.instruments.instrument import Instrument, Need
from graphdyn.instruments.noise import Noise, checked_source, noise_of_batches, target_or_why
from graphdyn.isolate import isolated
from graphdyn.problem import Problem
from graphdyn.schedule import Schedule
from graphdyn.snapshot import Snapshot
from graphdyn.statistics import Average, mean_of, ratio, weighted_line


class NoiseScale(Instrument):
    r"""Noise over signal, by group and in total.

    ===================  ==========================================================================
    ``noise_scale``      tr Sigma / \|grad L\|^2, in targets; needs a uniform sample of targets
    ``in_batches``       tr Cov g / \|E g\|^2, in batches as they are drawn; always there
    ``effective_batch``  tr Sigma / tr Cov g: of how many independent exact targets the noise of a
                         batch is that; tr Sigma from signs, see below
    ``floor, slope``     C and A of E\|g_b\|^2 = C + A / b, with ``others``
    ``misfit``           chi^2 by degrees of freedom of that line: above 1 if targets share
                         neighbourhoods
    ===================  ==========================================================================

    Ratios are infinite while the denominator is not positive; standard errors by the delta method from the
    jackknife over batches, without what the quantities moved while they were averaged; none for
    micro-batches. tr Sigma by signs: with e_i = +-1 independent, E\|grad sum e_i l_i\|^2 = sum \|g_i\|^2
    (Hutchinson 1989), on the whole graph at once, dropout masks held; ``effective_batch`` is left out where
    losses of single targets are not known. Below b for clusters (targets alike), and wherever sampling adds noise.
    C is \|grad L\|^2 - tr Sigma / T where neighbourhoods are exact.

    Args:
        source: As in :class:`graphdyn.GradNoise`.
        keep: Weight of the past in the averages, from one measurement to the next.
        others: The same problem at two or more other batch sizes.
        m: Batches of a probe; by default as the level says.
        signs: Draws of signs, a backward pass each, for ``effective_batch``; 0: leave it out.
        every: When.
    """

    levels = ({"m": 8, "signs": 4}, {"m": 4, "signs": 2}, {"m": 3, "signs": 0})
    cost = 8.0
    full = 3.0

    def __init__(
        self,
        source: str = "probe",
        *,
        keep: float = 0.9,
        others: Sequence[Problem] = (),
        m: int | None = None,
        signs: int | None = None,
        every: Schedule | int | None = None,
    ):
        super().__init__(every=every, m=m, signs=signs)
        self.source, self.others = checked_source(source), tuple(others)
        if source == "micro":
            self.fixed = {"signs": 0, **self.fixed}
        if not 0 <= keep < 1:
            raise InputError(f"keep is {keep}; it must lie in [0, 1).")
        need_problem = source == "probe" or self.others or self.fixed.get("signs", 1)
        self.needs = (Need.MICRO if source == "micro" else Need.NOTHING) | (
            Need.PROBLEM if need_problem else Need.NOTHING
        )
        self.cost = (12.0 if source == "probe" else 0.0) + 8.0 * len(self.others)
        self.batches, self.targets = Average(keep), Average(keep)

    def measure(self, s: Snapshot) -> Reading:
        """See :class:`NoiseScale`."""
        noise = self._averaged(noise_of_batches(s, self.source, self.option("m")))
        own: dict[Any, Any] = dict(by_group(s.groups, in_batches=quotient(noise)))
        target = target_or_why(noise, s.problem, self.source)
        if isinstance(target, Invalid):
            own["noise_scale"] = target
        else:
            own |= by_group(s.groups, noise_scale=quotient(target))
        if self.option("signs"):
            own |= self._effective(s, noise)
        return own | self._fit(s) if self.others else own

    def state(self) -> dict[str, Any]:
        """See :meth:`graphdyn.Instrument.state`."""
        return {"batches": self.batches.state(), "targets": self.targets.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See :meth:`graphdyn.Instrument.restore`."""
        self.batches.restore(state["batches"])
        self.targets.restore(state["targets"])

    def _averaged(self, now: Noise) -> Noise:
        values = torch.stack([torch.as_tensor(e.value) for e in (now.trace, now.square)])
        if now.both is None:
            self.batches.add(values, torch.zeros_like(values))
            trace, square = self.batches.read()[0]
            return Noise(Estimate(trace, None), Estimate(square, None))
        errors = [torch.as_tensor(e.se).square() for e in (now.trace, now.square)]
        self.batches.add(values, torch.stack([*errors, now.both]))
        (trace, square), (first, second, both) = self.batches.read()
        return Noise(Estimate(trace, first.sqrt()), Estimate(square, second.sqrt()), both)

    def _effective(self, s: Snapshot, noise: Noise) -> dict[Any, Any]:
        try:
            now = noise_by_signs(s, self.option("signs"))
        except Invalid as reason:
            return {"effective_batch": reason}
        value = torch.as_tensor(now.value)
        error = torch.full_like(value, torch.nan) if now.se is None else torch.as_tensor(now.se)
        self.targets.add(value, error.square())
        value, variance = self.targets.read()
        bottom = torch.as_tensor(noise.trace.value)
        below = torch.as_tensor(0.0 if noise.trace.se is None else noise.trace.se).square()
        found = ratio(value, bottom, (variance, below, torch.zeros_like(value)))
        return by_group(s.groups, effective_batch=found)

    def _fit(self, s: Snapshot) -> Measured:
        problems = [s.given(), *self.others]
        means = [_square_of(s, problem, self.option("m")) for problem in problems]
        sizes = torch.tensor([1 / problem.batch_size for problem in problems], dtype=torch.float64)
        value, se = (torch.stack([torch.as_tensor(e[i]) for e in means], -1) for i in (0, 1))
        se = torch.maximum(se, 1e-9 * value)  # of a problem without noise
        constant, slope, misfit = weighted_line(sizes.to(value.device), value, se)
        return by_group(s.groups, floor=constant, slope=slope, misfit=Estimate(misfit))


def quotient(noise: Noise) -> Estimate:
    """Noise over signal; without a standard error where none is known."""
    top, bottom = torch.as_tensor(noise.trace.value), torch.as_tensor(noise.square.value)
    if noise.both is None:
        zero = torch.zeros_like(top)
        return ratio(top, bottom, (zero, zero, zero))._replace(se=None)
    errors = [torch.as_tensor(e.se).square() for e in (noise.trace, noise.square)]
    return ratio(top, bottom, (errors[0], errors[1], noise.both))


def noise_by_signs(s: Snapshot, signs: int) -> Estimate:
    """(G + 1) tr Sigma of single targets, exact neighbourhoods, from random signs.

    Raises:
        Invalid: If losses of single targets are not known, or the graph does not fit at once.
    """
    losses = s.trace("full").losses
    if losses is None:
        raise Invalid("losses of single targets are not known here, so their noise is not either.")
    count, key = losses.numel(), s.key.fold("signs")
    ids = torch.arange(count, device=losses.device)
    rows = [key.fold(r).integers(ids, 2) * 2 - 1 for r in range(signs)]
    mean = torch.full((count,), 1 / count, dtype=losses.dtype, device=losses.device)
    flat = torch.stack([_pull(s, losses, row.to(losses.dtype)) for row in (*rows, mean)])
    squares = grams(s.groups, flat).diagonal(dim1=-2, dim2=-1)
    return mean_of((squares[..., :-1] - count * squares[..., -1:]) / (count - 1))


def _pull(s: Snapshot, losses: Tensor, weight: Tensor) -> Tensor:
    own = s.groups.parameters
    found = torch.autograd.grad(
        losses @ weight, [*own.values()], retain_graph=True, allow_unused=True
    )
    pairs = zip(own.items(), found)
    return s.groups.flat({n: torch.zeros_like(p) if g is None else g for (n, p), g in pairs})


def _square_of(s: Snapshot, problem: Problem, m: int) -> Estimate:
    """(G + 1) mean of |g|^2 over batches of a problem."""
    rows = []
    for i in range(m):
        key = s.key.fold("size", i)
        with isolated(s.model, key):
            rows.append(s.groups.flat(problem.step_gradient(s.model, problem.draw(key))))
    return mean_of(grams(s.groups, torch.stack(rows)).diagonal(dim1=-2, dim2=-1))
