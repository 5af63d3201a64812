"""Noise and signal of batch gradients: from a probe or from micro-batches, per batch and per target.

With b targets a batch of T and Sigma the (T - 1)-normalised covariance of the exact gradients of single targets,
sampling without replacement (Cochran 1977, theorem 2.2) gives, where neighbourhoods are exact,

===========  ======================================  =========================================
batches      tr Cov, unbiased for                    squared mean, unbiased for
===========  ======================================  =========================================
independent  (1 / b - 1 / T) tr Sigma                |grad L|^2
disjoint     (1 / b) tr Sigma                        |grad L|^2 - tr Sigma / T
===========  ======================================  =========================================

(derived here for disjoint ones: two of them have the covariance -Sigma / T). Shapes: m batches, G groups; every
number is one of G + 1, the total last.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from graphdyn.errors import InputError
from graphdyn.estimate import Estimate, Invalid
from graphdyn.groups import Groups
from graphdyn.instruments.by_group import grams
from graphdyn.problem import Problem
from graphdyn.samplers import Simple
from graphdyn.snapshot import Snapshot
from graphdyn.statistics import (
    covariance_of,
    pairs_pseudo,
    squared_mean,
    trace_of_covariance,
    trace_pseudo,
)

SOURCES = ("probe", "micro")


class Noise(NamedTuple):
    """Trace of a covariance and square of a mean.

    Attributes:
        trace: (G + 1) tr Cov.
        square: (G + 1) squared mean; may be negative.
        both: (G + 1) covariance of the errors of the two; ``None`` where no errors are known.
    """

    trace: Estimate
    square: Estimate
    both: Tensor | None = None


def noise_of_batches(s: Snapshot, source: str, m: int, *, exact: bool = False) -> Noise:
    """Of a batch, as it is drawn.

    Args:
        s: This moment.
        source: ``"probe"``, m new batches; ``"micro"``, those of the last step.
        m: Of a probe.
        exact: Of a probe: the same targets with exact neighbourhoods.

    Returns:
        Noise of one batch, in units of the gradient of the step.

    Raises:
        Invalid: If there are no such gradients.
    """
    if source == "micro":
        return noise_of_micro(*_micro(s))
    probe = s.probe(m, exact=exact)
    rows = probe.exact if exact else probe.grads[:, 0]
    assert rows is not None
    return noise_of_gram(grams(s.groups, rows))


def noise_of_gram(gram: Tensor) -> Noise:
    """From (G + 1, m, m) inner products of gradients of independent batches."""
    trace, square = trace_of_covariance(gram), squared_mean(gram)
    both = covariance_of(trace_pseudo(gram), pairs_pseudo(gram)) if gram.shape[-1] > 2 else None
    return Noise(trace, square, both)


def noise_of_micro(parts: Tensor, whole: Tensor) -> Noise:
    """From (n, G + 1) squared norms of the parts of a gradient and (G + 1) of their sum.

    The gradient of a micro-batch is n times its part: then their mean is the gradient of the step, whether
    the loop has divided by n or not.
    """
    n = parts.shape[0]
    own, total = n**2 * parts.sum(0), n**2 * whole  # Q and A
    trace, square = (own - total / n) / (n - 1), (total - own) / (n * (n - 1))
    return Noise(Estimate(trace, None, n), Estimate(square, None, n))


def noise_of_target(noise: Noise, simple: Simple, count: int, *, disjoint: bool) -> Noise:
    """From batches of a uniform sample to one target, with the correction for a finite population.

    Args:
        noise: Of batches.
        simple: How many targets they have.
        count: T.
        disjoint: Whether the batches are pieces of one sample; they are independent otherwise.
    """
    b = simple.size
    scale = b if disjoint else 1 / (1 / b - 1 / count)
    trace = scaled(noise.trace, scale)
    both = None if noise.both is None else scale * noise.both
    if not disjoint:
        return Noise(trace, noise.square, both)
    square = noise.square._replace(value=noise.square.value + trace.value / count)
    return Noise(trace, square, both)


def scaled(estimate: Estimate, by: float) -> Estimate:
    """A multiple of an estimate."""
    se = None if estimate.se is None else by * estimate.se
    return Estimate(by * estimate.value, se, estimate.n)


def target_or_why(noise: Noise, problem: Problem | None, source: str) -> Noise | Invalid:
    """Noise of one target, or why there is no such number."""
    if problem is None:
        return Invalid("how many targets a batch has is not known; give the recorder problem=.")
    simple, count = problem.simple, problem.num_targets
    if simple is None:
        return Invalid(
            "targets are not a uniform sample without replacement with equal weights, or nobody said so; the "
            "noise of a batch is then not that of one target divided by b, so read that of batches."
        )
    if simple.size >= count:
        return Invalid("every batch has all targets, and says nothing of the noise of one.")
    return noise_of_target(noise, simple, count, disjoint=source == "micro" and simple.disjoint)


def checked_source(source: str) -> str:
    """Raise :class:`InputError` unless the source is known."""
    if source not in SOURCES:
        raise InputError(f"the source of noise is '{source}'; expected 'probe' or 'micro'.")
    return source


def _micro(s: Snapshot) -> tuple[Tensor, Tensor]:
    if s.micro is None or s.micro.shape[0] < 2:
        raise Invalid(
            "the last step was not accumulated from two micro-batches or more; use source='probe'."
        )
    if s.modified:
        raise Invalid(
            "gradients were written to between backward pass and step (clipping, loss scaling, a memory), "
            "so they are no longer the sum of those of the micro-batches; use source='probe'."
        )
    return with_total(s.micro.double(), 1), with_total(_squares(s.groups, s.grad), 0)


def _squares(groups: Groups, flat: Tensor) -> Tensor:
    return torch.stack([*groups.dots(flat, flat).values()])


def with_total(parts: Tensor, dim: int) -> Tensor:
    """The parts and, last, their sum."""
    return torch.cat([parts, parts.sum(dim, keepdim=True)], dim)
