"""Control variates under dropout (CVD): the table holds means, what a pass without dropout computes.

Chen, Zhu & Song 2018, section 5.1, see :mod:`graphdyn.samplers.twin` for the estimator. A step runs the model
twice: forward without dropout, for the means mu; then the training pass, whose residuals h - mu are
aggregated with the scale sqrt(s), and whose means are constants, as in the published code. The forward
pass is unbiased over samples and masks where the network is linear. Its gradient is not: it comes back
through sqrt(s) where the full graph has s on average, so at fan-out k of d neighbours a hop shrinks it by
about sqrt(k / d).

``history`` in mode ``control`` has no such bias. Its fresh and remembered rows share the masks of the step,
node by node, so what is dropped right behind a table cancels, and in a network of two layers its variance
is that of the full graph. What was dropped in front of a table (features, or states of layers further
down) stays in its rows as noise; there CVD has the lower variance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from graphdyn.batch import Batch
from graphdyn.memories.history import History, HistoryMemory
from graphdyn.memories.memory import Setting
from graphdyn.memories.passes import forward
from graphdyn.models.output import Output
from graphdyn.samplers.twin import join, with_means


@dataclass(frozen=True)
class Cvd(History):
    """One row a node and hop, free of dropout noise. See :class:`History` for the options."""

    modes: ClassVar[tuple[str, ...]] = ("cvd",)
    parallel: ClassVar[bool] = True

    mode: str = "cvd"

    def bind(self, setting: Setting) -> CvdMemory:
        """See :meth:`MemoryRecipe.bind`."""
        return CvdMemory(self, setting)


class CvdMemory(HistoryMemory):
    """See :class:`Cvd`.

    Attributes:
        means: Outputs of the step's pass without dropout.
    """

    def __init__(self, recipe: Cvd, setting: Setting):
        super().__init__(recipe, setting)
        self.means: tuple[Output, ...] = ()

    def recall(self, batch: Batch, *, count: bool = True) -> Batch:
        """The batch of a pass without dropout, with what the tables hold."""
        hops = range(self.model.num_hops)
        blocks = (batch.block(hop) for hop in hops)
        joined = tuple(block if block.border is None else join(block) for block in blocks)
        return super().recall(replace(batch, blocks=joined, dropout=False), count=count)

    def pull(self, batch: Batch) -> Batch:
        """See :meth:`Memory.pull`; runs the pass without dropout."""
        calm = super().pull(batch)
        means = forward(self.model, calm)
        self.means = (means,)
        hops = range(self.model.num_hops)
        blocks = (
            with_means(batch.block(hop), calm.block(hop), means.hidden, self.model.recalls(hop))
            for hop in hops
        )
        return replace(batch, blocks=tuple(blocks))

    def push(self, batch: Batch, output: Output) -> None:
        """See :meth:`Memory.push`: the means are what is remembered."""
        (means,), self.means = self.means, ()
        self.remember(batch, means)
