"""Plans that add something to others, which draw."""

from __future__ import annotations

from typing import Any

from graphdyn.batch import Block, Plan
from graphdyn.keys import Key
from graphdyn.samplers.sampler import Plans


class AroundPlans(Plans):
    """Plans around others, with as many batches.

    Args:
        base: The plans that draw.
    """

    def __init__(self, base: Any):
        self.base, self.live = base, base.live

    def around(self, plan: Plan) -> Plan:
        """A plan of ``base`` with what these add to it."""
        return plan

    def plan(self, key: Key) -> Plan:
        """See :meth:`Plans.plan`."""
        return self.around(self.base.plan(key))

    def redraw(self, key: Key, again: Key) -> Plan | None:
        """See :meth:`Plans.redraw`."""
        plan = self.base.redraw(key, again)
        return None if plan is None else self.around(plan)

    @property
    def num_batches(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Steps in an epoch."""
        return self.base.num_batches


def one_a_hop(blocks: tuple[Block, ...], hops: int) -> tuple[Block, ...]:
    """The blocks of so many hops, none for no hop; a single block serves all."""
    return blocks * hops if len(blocks) < hops else blocks[:hops]
