"""Seed policies: which training nodes carry the loss of a step, and with which weights.

A policy says how; bound to its pool of nodes it draws the seeds of any step as a pure function of the
key, whatever was drawn before. Shapes: T nodes in the pool, B seeds in a step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from graphdyn.errors import InputError
from graphdyn.keys import Key


class Seeds(NamedTuple):
    """The seed nodes of one step.

    Attributes:
        node_id: (B,) int64 distinct global ids.
        weight: (B,) float32 omega: ``E sum(omega * f) = mean of f over the pool``.
        prob: (B,) float32 probability that each is a seed of a step.
    """

    node_id: Tensor
    weight: Tensor
    prob: Tensor


class Simple(NamedTuple):
    """Seeds of a step are a uniform sample without replacement, each with the weight 1 / B.

    Attributes:
        size: B; where sizes differ, their harmonic mean, so that ``1 / size`` is the mean of 1 / B.
        disjoint: Steps of an epoch share no seed. Otherwise every step is drawn by itself.
    """

    size: float
    disjoint: bool


class SeedPolicy(ABC):
    """How seeds are drawn; a frozen dataclass of plain values."""

    @abstractmethod
    def bind(self, pool: Tensor, **signals: Any) -> SeedDraw:
        """Prepare for a pool.

        Args:
            pool: (T,) int64 distinct node ids.
            **signals: What a policy may ask for besides, by name (importance scores).

        Raises:
            InputError: If the policy does not fit the pool.
        """


class SeedDraw(ABC):
    """A policy bound to its pool; safe to share by threads.

    Attributes:
        pool: (T,) int64 node ids.
        prob: (T,) float32 probability that each is a seed of a step (mean over an epoch's steps).
        num_batches: Steps in an epoch.
        live: Draws depend on what training has written by then, see :class:`graphdyn.samplers.Plans`.
        simple: See :class:`Simple`; ``None``: seeds are drawn or weighted otherwise.
    """

    pool: Tensor
    prob: Tensor
    num_batches: int
    live: bool = False
    simple: Simple | None = None

    @abstractmethod
    def draw(self, key: Key) -> Seeds:
        """The seeds of the step ``key.step`` (counted over the run) of epoch ``key.epoch``."""


@dataclass(frozen=True)
class Shuffle(SeedPolicy):
    """A new random order every epoch, cut into batches whose sizes differ by at most one.

    Every node of the pool is a seed once an epoch. A step's seeds are a uniform sample without
    replacement, so 1 / B each is unbiased.

    Attributes:
        batch_size: Largest B. Cut evenly, no epoch ends in a tiny, noisy batch.
    """

    batch_size: int

    def bind(self, pool: Tensor, **signals: Any) -> SeedDraw:
        """See :meth:`SeedPolicy.bind`."""
        check_size(self.batch_size, pool)
        return _Shuffled(pool, steps_to_cover(pool, self.batch_size))


class _Shuffled(SeedDraw):
    def __init__(self, pool: Tensor, num_batches: int):
        self.pool, self.num_batches = pool, num_batches
        self.prob = fill(pool, 1 / num_batches)
        low, more = divmod(pool.numel(), num_batches)
        inverse = (num_batches - more) / low + more / (low + 1)
        self.simple = Simple(num_batches / inverse, disjoint=True)
        self._order: tuple[Key, Tensor] | None = None

    def draw(self, key: Key) -> Seeds:
        order = self._shuffled(Key(key.seed, key.epoch, path=key.path).fold("seeds"))
        total, index = order.numel(), key.step % self.num_batches
        first, last = (total * i // self.num_batches for i in (index, index + 1))
        size = last - first
        return even_seeds(self.pool[order[first:last]], 1 / size, size / total)

    def _shuffled(self, key: Key) -> Tensor:
        # Sorting the pool costs more than a batch, so an epoch's order is kept. Threads may be in
        # different epochs: what one has read, another may replace.
        kept = self._order
        if kept is None or kept[0] != key:
            kept = self._order = (key, key.permutation(self.pool.numel(), self.pool.device))
        return kept[1]


@dataclass(frozen=True)
class Uniform(SeedPolicy):
    """Every step an independent uniform sample without replacement, whatever was drawn before.

    Steps are identically distributed, as the theory of stochastic gradients assumes; a node may be
    a seed twice in an epoch, or never. Weight 1 / B.

    Attributes:
        batch_size: B, exactly. An epoch has ceil(T / B) steps.
    """

    batch_size: int

    def bind(self, pool: Tensor, **signals: Any) -> SeedDraw:
        """See :meth:`SeedPolicy.bind`."""
        check_size(self.batch_size, pool)
        return _Uniform(pool, self.batch_size)


class _Uniform(SeedDraw):
    def __init__(self, pool: Tensor, size: int):
        self.pool, self.size = pool, size
        self.num_batches = steps_to_cover(pool, size)
        self.prob = fill(pool, size / pool.numel())
        self.simple = Simple(size, disjoint=False)

    def draw(self, key: Key) -> Seeds:
        # The nodes of the B smallest hashes: linear in T, where a whole permutation would sort.
        word = key.fold("seeds").hash(self.pool)
        chosen = torch.topk(word, self.size, largest=False).indices
        return even_seeds(self.pool[chosen], 1 / self.size, self.size / self.pool.numel())


def even_seeds(node_id: Tensor, weight: float, prob: float) -> Seeds:
    """Seeds with the same weight and probability."""
    return Seeds(node_id, fill(node_id, weight), fill(node_id, prob))


def fill(like: Tensor, value: float) -> Tensor:
    """A float32 constant for every node of a list."""
    return torch.full((like.numel(),), value, device=like.device)


def steps_to_cover(pool: Tensor, batch_size: int) -> int:
    """ceil(T / B): steps in an epoch."""
    return -(-pool.numel() // batch_size)


def check_size(batch_size: int, pool: Tensor) -> None:
    """Raise :class:`InputError` unless 1 <= batch_size <= T."""
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be at least 1.")
    if batch_size > pool.numel():
        raise InputError(
            f"batch_size is {batch_size}, but there are {pool.numel()} training nodes; "
            f"give at most {pool.numel()}, or use the sampler 'full'."
        )
