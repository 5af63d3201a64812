"""SamplerAudit: do the weights of a sampler's targets add up to the loss it is meant to estimate?

Valid for any problem that says which targets its batches have and with which weights; whatever the sampled
neighbourhoods do to the loss is another question (:mod:`graphdyn.instruments.sampler_mse`). A loss is unbiased, whatever
single targets lose, if and only if ``E[w_i 1(i in S)] = 1 / T`` for every target i. Source: the definition; thresholds
from Bernstein's inequality, derived below. Shapes: T targets, R draws.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from graphdyn.errors import InputError
from graphdyn.estimate import Curve, Estimate, Invalid, Reading
from graphdyn.instruments.instrument import Instrument, Need
from graphdyn.problem import Problem
from graphdyn.schedule import At, Schedule
from graphdyn.snapshot import Snapshot
from graphdyn.statistics import mean_of

ROUNDING = 1e-5  # relative, of float32 weights and their sums
FAR = 4.5  # standard errors; of three normal numbers, less than 1 in 40 000 audits is that far by chance


class SamplerAudit(Instrument):
    """Weights of targets over R independent batches, once; no gradients are taken.

    ================  ==================================================================================
    ``passed``        1 if all of the following are within their thresholds, else 0
    ``worst``         largest \\|z_i\\|, z_i = (mean of w_i 1(i in S) - 1 / T) in standard errors
    ``excess``        largest \\|z_i\\| over its threshold; above 1 in at most ``level`` of audits of a
                      sampler that is right
    ``weight``        E[sum of weights], to be 1
    ``degree``        E[sum of weights times degree] over its mean over targets, to be 1; of graphs
    ``loss``          E[sum of weights times exact losses] over the loss of all targets, to be 1; where
                      losses of single targets are known
    ``never``         share of targets that no draw had; they count, as far as R allows
    ``z``             curve: quantiles of the z_i
    ================  ==================================================================================

    Under the hypothesis ``w 1`` has the mean 1 / T and the variance w / T - 1 / T^2, w being the weight of the
    target when it is drawn (of one that never was: that of the pool). With \\|w 1 - 1 / T\\| at most w, Bernstein's
    inequality bounds the chance of \\|z\\| >= t by 2 exp(-t^2 / 2 / (1 + w t / (3 s sqrt R))), whatever R; t
    is where that is ``level`` / T (Bonferroni). The other three are means of R draws, far at 4.5 standard
    errors.

    Args:
        draws: R; by default as the level says. A weight that is wrong by a factor 1 + d at b targets of T
            is seen from about R = 40 T / (b d^2) on, if it is a single target's; much earlier if it goes
            with degree or loss.
        level: Chance that a right sampler fails on single targets.
        every: When; by default once, before the first step.
    """

    needs = Need.PROBLEM
    every: Schedule = At([0])
    levels = ({"draws": 256}, {"draws": 64})
    cost = 100.0

    def __init__(
        self,
        *,
        draws: int | None = None,
        level: float = 1e-3,
        every: Schedule | int | None = None,
    ):
        super().__init__(every=every, draws=draws)
        if draws is not None and draws < 2:
            raise InputError(f"draws is {draws}; at least 2 are needed.")
        if not 0 < level < 1:
            raise InputError(f"level is {level}; it must lie between 0 and 1.")
        self.chance = level

    def measure(self, s: Snapshot) -> Reading:
        """See :class:`SamplerAudit`."""
        problem = s.given()
        ids = all_targets(problem, s)
        values = covariates(problem, s, ids)
        seen = gather_weights(problem, s, ids, values, self.option("draws"))
        z, limit = z_scores(seen, self.chance)
        found: dict[Any, Any] = {
            name: relative(column, values[name]) for name, column in seen.sums.items()
        }
        far = [float(abs(e.value - 1)) > FAR * float(e.se) + ROUNDING for e in found.values()]
        excess = float((z.abs() / limit).max())
        worst = int(z.abs().argmax())
        found |= {"worst": float(z.abs()[worst]), "excess": excess}
        found |= {"never": float((seen.count == 0).double().mean()), "z": quantiles(z)}
        return found | {"passed": float(excess <= 1 and not any(far))}


class Weights(NamedTuple):
    """What R draws gave.

    Attributes:
        first: (T,) sum of weights by target.
        second: (T,) sum of squared weights.
        count: (T,) how often each was drawn.
        sums: (R,) sum over the targets of a draw of weight times something, by name.
        draws: R.
    """

    first: Tensor
    second: Tensor
    count: Tensor
    sums: dict[str, Tensor]
    draws: int


def all_targets(problem: Problem, s: Snapshot) -> Tensor:
    """(T,) ids of all targets, ascending.

    Raises:
        Invalid: If the problem does not know them.
    """
    pool = getattr(problem, "pool", None)
    if pool is None:
        pool = torch.cat([problem.targets(batch)[0] for batch in problem.full(s.key)])
    return pool.sort().values


def covariates(problem: Problem, s: Snapshot, ids: Tensor) -> dict[str, Tensor]:
    """(T,) float64 numbers of the targets, whose mean the weights must keep."""
    found = {"weight": torch.ones(ids.numel(), dtype=torch.float64, device=ids.device)}
    if problem.graph is not None:
        found["degree"] = problem.graph.csc.degree[ids].double()
    losses = _losses(problem, s, ids)
    if losses is not None:
        found["loss"] = losses
    return {name: v for name, v in found.items() if float(v.mean()) > 0}


def _losses(problem: Problem, s: Snapshot, ids: Tensor) -> Tensor | None:
    try:
        trace = s.trace("full")
    except Invalid:
        return None
    if trace.losses is None or trace.targets is None:
        return None
    order = trace.targets.argsort()
    same = torch.equal(trace.targets[order], ids)
    return trace.losses.detach()[order].double() if same else None


def gather_weights(
    problem: Problem, s: Snapshot, ids: Tensor, values: dict[str, Tensor], draws: int
) -> Weights:
    """Draw, and add up."""
    zero = torch.zeros(ids.numel(), dtype=torch.float64, device=ids.device)
    first, second, count = zero.clone(), zero.clone(), zero.clone()
    sums: dict[str, list[Tensor]] = {name: [] for name in values}
    for r in range(draws):
        nodes, weight = problem.targets(problem.draw(s.key.fold("audit", r)))
        weight = weight.double()
        place = torch.searchsorted(ids, nodes).clamp(max=ids.numel() - 1)
        if not torch.equal(ids[place], nodes):
            raise Invalid("batches have targets that the problem does not have.")
        first.index_add_(0, place, weight)
        second.index_add_(0, place, weight.square())
        count.index_add_(0, place, torch.ones_like(weight))
        for name, column in sums.items():
            column.append((weight * values[name][place]).sum())
    return Weights(first, second, count, {n: torch.stack(c) for n, c in sums.items()}, draws)


def z_scores(seen: Weights, level: float) -> tuple[Tensor, Tensor]:
    """(T,) deviations in standard errors, and (T,) thresholds that all keep with probability 1 - level."""
    total, draws = seen.first.numel(), seen.draws
    pooled = seen.second.sum() / seen.first.sum()
    weight = torch.where(seen.first > 0, seen.second / seen.first.clamp(min=1e-300), pooled)
    variance = (weight / total - 1 / total**2).clamp(min=0)
    apart = seen.first / draws - 1 / total
    exact = variance <= (ROUNDING / total) ** 2  # drawn always, or it is as good as always
    error = torch.where(exact, ROUNDING / total, (variance / draws).sqrt())
    log = math.log(2 * total / level)
    reach = weight / (3 * variance.clamp(min=1e-300).sqrt() * draws**0.5)
    limit = reach * log + (reach.square() * log**2 + 2 * log).sqrt()
    return apart / error, torch.where(exact, 1.0, limit)


def relative(column: Tensor, values: Tensor) -> Estimate:
    """The mean over draws, in units of what it should be."""
    found = mean_of(column / values.mean())
    return Estimate(found.value, found.se, found.n, 1.0)


def quantiles(z: Tensor, count: int = 21) -> Curve:
    """Of the z-scores, from the smallest to the largest."""
    x = torch.linspace(0, 1, count, dtype=torch.float64, device=z.device)
    at = (x * (z.numel() - 1)).round().long()
    return Curve(x, z.sort().values[at])
