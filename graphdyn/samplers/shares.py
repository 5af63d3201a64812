"""Shares: what one of W ranks takes of the seeds that all of them draw together.

Every rank draws the seeds of the whole step, W times a rank's batch, from the same key, and keeps its share.
So no seed is drawn twice, and the mean of the ranks' losses is the loss of one process with that batch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from graphdyn.errors import InputError
from graphdyn.keys import Key
from graphdyn.parallel import World
from graphdyn.samplers.seeds import SeedDraw, SeedPolicy, Seeds


def bind_share(policy: SeedPolicy, pool: Tensor, world: World, **signals: Any) -> SeedDraw:
    """A policy on its pool, for one rank; alone it is ``policy.bind``.

    Args:
        policy: Its ``batch_size`` is that of a rank.
        pool: (T,) int64 distinct node ids.
        world: Who draws.
        **signals: See :meth:`SeedPolicy.bind`.

    Returns:
        The rank's share of every step; all ranks have the same number of steps.

    Raises:
        InputError: If the pool is too small for all ranks, or the policy does not fit it.
    """
    if world.alone:
        return policy.bind(pool, **signals)
    size: int = policy.batch_size  # pyright: ignore[reportAttributeAccessIssue]
    most = largest_share(pool.numel(), world)
    if size > most:
        raise InputError(
            f"batch_size is {size} on each of {world.size} ranks, but there are {pool.numel()} nodes to "
            f"draw from; give at most {most}, or fewer ranks."
        )
    whole = replace(policy, batch_size=min(size * world.size, pool.numel()))  # pyright: ignore
    return _Share(whole.bind(pool, **signals), world)


def largest_share(count: int, world: World) -> int:
    """Most that a rank can take of so many, when all take alike: rounded up."""
    return -(-count // world.size)


class _Share(SeedDraw):
    """A uniform part of the seeds of every step, its weights times W.

    Which part is drawn anew every step, and so is the rank that takes one seed more where they are not
    a multiple of W: then each rank's loss is unbiased alone, too.
    """

    def __init__(self, whole: SeedDraw, world: World):
        self.whole, self.world = whole, world
        self.pool, self.num_batches, self.live = whole.pool, whole.num_batches, whole.live
        if whole.simple is not None:
            self.simple = whole.simple._replace(size=whole.simple.size / world.size)

    @property
    def prob(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.whole.prob / self.world.size

    def draw(self, key: Key) -> Seeds:
        seeds, ranks = self.whole.draw(key), self.world.size
        key = key.fold("rank")
        order = torch.argsort(key.hash(seeds.node_id), stable=True)
        place = (self.world.rank + key.bits) % ranks
        first, last = (order.numel() * i // ranks for i in (place, place + 1))
        mine = order[first:last]
        return Seeds(seeds.node_id[mine], seeds.weight[mine] * ranks, seeds.prob[mine] / ranks)
