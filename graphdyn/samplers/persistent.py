"""Persistent seeds: every node stays in the batch, or out of it, for many steps.

Persistent SGD (Mignacco, Krzakala, Urbani & Zdeborova 2020, "Dynamical mean-field theory for
stochastic gradient descent in Gaussian mixture classification", section 2): a two-state chain for
each node, 0 -> 1 with probability 1 / tau and 1 -> 0 with (1 - b) / (b tau) a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from graphdyn.errors import InputError
from graphdyn.keys import Key
from graphdyn.samplers.seeds import (
    SeedDraw,
    SeedPolicy,
    Seeds,
    check_size,
    even_seeds,
    fill,
    steps_to_cover,
)


@dataclass(frozen=True)
class Persistent(SeedPolicy):
    """Chains with stationary mean b = B / T and autocorrelation (1 - 1 / (b tau))^lag; weight 1 / (b T).

    ``tau = T / B`` draws every step anew (Poisson seeds); ``B = T`` is full-batch descent. The number of
    seeds is random, B on average, and may be 0. Chains start stationary at step 0 and run through
    epochs.

    Attributes:
        batch_size: B, the expected number of seeds.
        tau: Mean number of steps that a node stays out, at least T / B.
    """

    batch_size: int
    tau: float

    def bind(self, pool: Tensor, **signals: Any) -> SeedDraw:
        """See :meth:`SeedPolicy.bind`."""
        check_size(self.batch_size, pool)
        share = self.batch_size / pool.numel()
        # The last digit of 1 / b is forgiven: tau = T / B must pass.
        if not share * self.tau >= 1 - 1e-12 or self.tau == float("inf"):
            raise InputError(
                f"tau is {self.tau}; with {self.batch_size} of {pool.numel()} nodes a step it must be "
                f"finite and at least {1 / share:g} steps."
            )
        return _Persistent(pool, self.batch_size, 1 / (share * self.tau))


class _Memo(NamedTuple):
    """The states at one step: from here the next steps are near."""

    root: Key
    step: int
    state: Tensor


class _Persistent(SeedDraw):
    """The chain as a pure function of the key.

    Redrawing a state from Bernoulli(b) with probability r = 1 / (b tau) is the same chain: 0 -> 1 with
    r b = 1 / tau, 1 -> 0 with r (1 - b). So a state is the draw at the last redraw, which is found by
    walking back; whatever was computed before only shortens the walk.
    """

    def __init__(self, pool: Tensor, size: int, rate: float):
        self.pool, self.rate = pool, rate
        self.num_batches = steps_to_cover(pool, size)
        self.share = size / pool.numel()
        self.prob = fill(pool, self.share)
        self._memo: _Memo | None = None

    def draw(self, key: Key) -> Seeds:
        root = Key(key.seed, path=key.path).fold("seeds")
        memo = self._memo  # one read: another thread may replace it
        known = memo if memo and memo.root == root else None
        state = self._walk_back(root, key.step, known)
        self._memo = _Memo(root, key.step, state)
        return even_seeds(self.pool[state], 1 / (self.share * self.pool.numel()), self.share)

    def _walk_back(self, root: Key, step: int, known: _Memo | None) -> Tensor:
        """(T,) bool states at a step; where the walk meets the known step, they are read."""
        pending = torch.arange(self.pool.numel(), device=self.pool.device)
        state = torch.zeros(self.pool.numel(), dtype=torch.bool, device=self.pool.device)
        while pending.numel():
            if known is not None and step == known.step:
                state[pending] = known.state[pending]
                break
            redrawn = self._redrawn(root.at(step=step), pending)
            at = pending[redrawn]
            drawn = root.at(step=step).fold("state").uniform(self.pool[at])
            state[at] = drawn < self.share
            pending = pending[~redrawn]
            step -= 1
        return state

    def _redrawn(self, key: Key, position: Tensor) -> Tensor:
        if key.step == 0:
            return torch.ones_like(position, dtype=torch.bool)
        return key.fold("redraw").uniform(self.pool[position]) < self.rate
