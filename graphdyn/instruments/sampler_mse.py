"""SamplerMSE: how wrong the gradient of a step is at frozen weights, and which part of the error is whose.

With S the targets of a step (with the dropout masks that its key draws, and the nodes of a subgraph whose plan they
decide), w the neighbours drawn for them, g(S, w) what the optimiser sees, e(S) the gradient of the same loss with
exact neighbourhoods and the same masks, and G that of all targets, exact, averaged over masks, two exact laws
hold, derived here by conditioning on S:

    E|g - G|^2 = V_emb + b2_cond + V_sgd + X        E|g - G|^2 = bias2 + between + V_emb

The first is the identity of Cong et al. 2020 ("Minimal Variance Sampling with Provable Guarantees for Fast Training
of Graph Neural Networks", definition 3.1) with the cross term X, which that leaves out. Valid for any sampler and
memory whose targets can be computed exactly; a memory is looked at as it is, nothing is pushed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from graphdyn.errors import InputError
from graphdyn.estimate import Estimate, Invalid, Reading
from graphdyn.groups import Groups
from graphdyn.instruments.by_group import by_group, grams
from graphdyn.instruments.dropout import drops
from graphdyn.instruments.instrument import Instrument, Need
from graphdyn.schedule import Auto, Schedule
from graphdyn.snapshot import Probe, Snapshot
from graphdyn.statistics import (
    mean_of,
    pairs_pseudo,
    squared_mean,
    trace_of_covariance,
    trace_pseudo,
)


class SamplerMSE(Instrument):
    r"""Parts of the error of a step's gradient, by group and in total; units are those of a squared gradient.

    ===================  ==============================================  ===================================
    ``mse``              E\|g - G\|^2                                    the sum of the next four
    ``v_emb``            E_S tr Var(g given S): drawn neighbours         spread of k draws
    ``b2_cond``          E_S\|E[g given S] - e\|^2: sampling, staleness   products of different draws
    ``v_sgd``            E_S\|e - G\|^2: which targets (and masks)        mean
    ``cross``            X = 2 E_S<E[g given S] - e, e - G>              mean
    ``embedding``        v_emb + b2_cond                                 always there
    ``bias2``            \|E g - G\|^2: what no averaging takes away      products of different batches
    ``between``          E_S-variance of E[g given S]                    mse - bias2 - v_emb
    ``variance``         between + v_emb                                 always there
    ``embedding_bias2``  \|E[g - e]\|^2: ``bias2`` without the noise of    products of different batches
                         targets, where ``exact_bias2`` is 0
    ``exact_bias2``      \|E_S e - G\|^2                                  products of different batches
    ``dropout``          tr Var of the full gradient over masks,         with dropout alone
                         a part of v_sgd
    ``square``           \|G\|^2, to compare with
    ===================  ==============================================  ===================================

    All are unbiased; squared biases, ``b2_cond``, ``cross`` and ``between`` may be negative. Standard
    errors: over m batches (jackknife). ``exact_bias2`` is 0 where weights are unbiased and nothing averages
    over rows; with batch norm in training it is the gap between statistics of batches and of the graph.

    Where targets cannot be held while neighbours are drawn (subgraph samplers), ``v_emb``, ``b2_cond`` and ``between``
    are missing, with the reason, and their sums are not. Where the gradient of all targets is not to be
    had, G is taken to be E_S e, which differences of independent batches replace (``exact_bias2`` and ``square``
    are missing). With dropout, G is a mean over ``masks`` full gradients whose own variance is taken out.

    Args:
        m: Batches; by default as the level says.
        k: Draws of neighbours each.
        masks: Full gradients where the model drops anything.
        every: When.

    Raises:
        InputError: If there are fewer than 3 batches, or 2 draws or masks.
    """

    needs = Need.PROBLEM
    every: Schedule = Auto(least=200)
    levels = (
        {"m": 8, "k": 2, "masks": 4},
        {"m": 4, "k": 2, "masks": 3},
        {"m": 3, "k": 2, "masks": 2},
    )
    cost = 16.0
    full = 9.0

    def __init__(
        self,
        *,
        m: int | None = None,
        k: int | None = None,
        masks: int | None = None,
        every: Schedule | int | None = None,
    ):
        super().__init__(every=every, m=m, k=k, masks=masks)
        for name, least in (("m", 3), ("k", 2), ("masks", 2)):
            if self.fixed.get(name, least) < least:
                raise InputError(f"{name} is {self.fixed[name]}; it must be at least {least}.")

    def measure(self, s: Snapshot) -> Reading:
        """See :class:`SamplerMSE`."""
        probe, merged = self._probe(s)
        assert probe.exact is not None
        full = full_gradients(s, self.option("masks"))
        parts = parts_of(s.groups, probe.grads, probe.exact, full)
        found: dict[Any, Any] = dict(by_group(s.groups, **parts))
        if merged is not None:
            found.update(dict.fromkeys(("v_emb", "b2_cond", "between"), merged))
        return found

    def _probe(self, s: Snapshot) -> tuple[Probe, Invalid | None]:
        m, k = self.option("m"), self.option("k")
        try:
            return s.probe(m, k, exact=True), None
        except Invalid as reason:
            found = s.probe(m, exact=True)  # raises again where exact neighbourhoods are not known
            why = f"{str(reason).rstrip('.')}; `embedding` and `variance` hold what cannot be told apart."
            return found, Invalid(why)


def full_gradients(s: Snapshot, masks: int) -> Tensor | None:
    """(R, P) of all targets, exact; R different masks where the model drops anything. ``None``: not known."""
    try:
        first = s.full_grad()
    except Invalid:
        return None
    if not drops(s.model):
        return first[None]
    rows = [first]
    for r in range(1, masks):
        key, problem = s.key.fold("masks", r), s.given()
        pieces = [s.gradients(b, exact=True, key=key) for b in problem.full(key)]
        rows.append(torch.stack(pieces).sum(0))
    return torch.stack(rows)


def parts_of(
    groups: Groups, grads: Tensor, exact: Tensor, full: Tensor | None
) -> dict[str, Estimate]:
    """Every part, of (G + 1) numbers each, by name.

    Args:
        groups: G of them.
        grads: (m, k, P) what the optimiser would see; with k = 1 sampling and targets are not told apart.
        exact: (m, P) of the same targets with exact neighbourhoods.
        full: (R, P) of all targets under R dropout masks; ``None``: not known.
    """
    k, apart = grads.shape[1], grads - exact[:, None]
    mean_apart = apart.mean(1)
    parts = _sampling(groups, apart, mean_apart)
    biases = {"embedding_bias2": squared_mean(grams(groups, mean_apart))}
    if full is None:
        parts |= _targets_by_pairs(groups, mean_apart, exact)
        centred = exact  # and |E g - E e|^2 is that of the differences
        biases["bias2"] = biases["embedding_bias2"]
    else:
        centred = exact - full.mean(0)
        parts |= _targets(groups, mean_apart, centred)
        biases |= {
            "bias2": squared_mean(grams(groups, mean_apart + centred)),
            "exact_bias2": squared_mean(grams(groups, centred)),
        }
    parts["mse"] = parts["embedding"] + parts["v_sgd"] + parts["cross"]
    spread = trace_pseudo(grams(groups, mean_apart + centred))
    if k > 1:
        parts["between"] = spread - parts["v_emb"] / k
    parts["variance"] = parts["between"] + parts["v_emb"] if k > 1 else spread
    found = {name: mean_of(values) for name, values in parts.items()} | biases
    return found if full is None else _without_masks(groups, found, full)


def _sampling(groups: Groups, apart: Tensor, mean: Tensor) -> dict[str, Tensor]:
    """(G + 1, m) parts of |g - e|^2, from (m, k, P) differences and their (m, P) means over draws."""
    k = apart.shape[1]
    each, square = dots(groups, apart, apart), dots(groups, mean, mean)
    if k == 1:
        return {"embedding": square}
    noise = (each.sum(-1) - k * square) / (k - 1)
    return {"v_emb": noise, "b2_cond": square - noise / k, "embedding": each.mean(-1)}


def _targets(groups: Groups, mean_apart: Tensor, centred: Tensor) -> dict[str, Tensor]:
    """(G + 1, m) parts that the choice of targets has, with e - G."""
    return {
        "v_sgd": dots(groups, centred, centred),
        "cross": 2 * dots(groups, mean_apart, centred),
    }


def _targets_by_pairs(groups: Groups, mean_apart: Tensor, exact: Tensor) -> dict[str, Tensor]:
    """(G + 1, m) pseudo-values of the same, from differences of two batches in place of e - G."""
    both = grams(groups, mean_apart, exact)
    own = both.diagonal(dim1=-2, dim2=-1)
    kernel = own[..., :, None] + own[..., None, :] - both - both.transpose(-2, -1)
    return {
        "v_sgd": trace_pseudo(grams(groups, exact)),
        "cross": pairs_pseudo(kernel),
    }


def _without_masks(groups: Groups, found: dict[str, Estimate], full: Tensor) -> dict[str, Estimate]:
    """What was measured against a mean over R masks, without the variance of that mean.

    The error of the correction is at most that of a squared mean in one dimension,
    ``tr Var sqrt(2 / (R (R - 1)))``.
    """
    count, gram = full.shape[0], grams(groups, full)
    if count == 1:
        square = gram[..., 0, 0]
        return found | {"square": Estimate(square, torch.zeros_like(square))}
    noise = trace_of_covariance(gram)
    value = torch.as_tensor(noise.value)
    error = value * (2 / (count * (count - 1))) ** 0.5
    for name in ("mse", "v_sgd", "bias2", "exact_bias2"):
        was = found[name]
        se = (torch.as_tensor(was.se).square() + error.square()).sqrt()
        found[name] = Estimate(was.value - value / count, se, was.n)
    return found | {"dropout": noise, "square": squared_mean(gram)}


def dots(groups: Groups, a: Tensor, b: Tensor) -> Tensor:
    """(G + 1, ...) inner products over the last dimension, the total last; float64."""
    each = torch.stack([*groups.dots(a, b).values()])
    return torch.cat([each, each.sum(0, keepdim=True)])
