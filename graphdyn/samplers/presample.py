"""More seeds than a step will use, so that somebody may choose among them."""

from __future__ import annotations

from dataclasses import dataclass

from graphdyn.batch import Plan
from graphdyn.errors import InputError
from graphdyn.keys import Key
from graphdyn.samplers.around import AroundPlans
from graphdyn.samplers.sampler import LayeredPlans, Sampler, Task
from graphdyn.samplers.seeds import Seeds, Uniform


@dataclass(frozen=True)
class Presampled(Sampler):
    """Another sampler with uniform seeds; while it is on, plans have ``times`` as many.

    Attributes:
        sampler: A layered sampler, or ``induced``.
        times: Seeds of a plan for each that will be used; all of the pool, if that is fewer.
    """

    sampler: Sampler
    times: int

    def make(self, task: Task) -> PresampledPlans:
        """See :meth:`Sampler.make`."""
        seeds = getattr(self.sampler, "seeds", None)
        plans = self.sampler.make(task)
        if not isinstance(plans, LayeredPlans) or seeds not in ("shuffle", "uniform"):
            told = f"seeds '{seeds}'" if seeds else f"the sampler {type(self.sampler).__name__}"
            raise InputError(
                f"seeds are chosen among uniform ones, but {told} was given; use a layered sampler "
                "(neighbor, labor, ladies ...) with seeds 'shuffle' or 'uniform', without histories."
            )
        size = getattr(self.sampler, "batch_size", 1)
        return PresampledPlans(plans, size, min(size * self.times, plans.seeds.pool.numel()))


class PresampledPlans(AroundPlans):
    """See :class:`Presampled`.

    Args:
        base: Plans of the usual size.
        size: b, seeds of a step.
        many: Seeds of a presample.

    Attributes:
        on: Whether the next plan is a presample; whoever chooses among the seeds sets it.
    """

    def __init__(self, base: LayeredPlans, size: int, many: int):
        super().__init__(base)
        self.live, self.size, self.many = True, size, many
        self.structure, self.on = base.structure, False
        self._draw = Uniform(many).bind(base.seeds.pool)

    @property
    def simple(self) -> None:
        """Not simple: whoever chooses among the seeds gives them weights."""
        return None

    def plan(self, key: Key) -> Plan:
        """See :meth:`Plans.plan`; a presample draws neighbours of its own, not those of the step."""
        if not self.on:
            return self.base.plan(key)
        apart = key.fold("presample")
        plan = self.base.plan_for(self._draw.draw(apart), apart)
        return Plan(plan.blocks, plan.rows, plan.seeds, plan.seed_weight, key)

    def redraw(self, key: Key, again: Key) -> Plan | None:
        """See :meth:`Plans.redraw`; a presample is no step's batch."""
        return None if self.on else self.base.redraw(key, again)

    def plan_for(self, seeds: Seeds, key: Key) -> Plan:
        """The plan of the seeds that were chosen."""
        return self.base.plan_for(seeds, key)
