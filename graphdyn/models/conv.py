"""Conv: what a layer of a stack is, and the slot where it stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from graphdyn.graph import Features
from graphdyn.keys import Key
from graphdyn.models.propagate import Hop


class Slot(NamedTuple):
    """Where a conv stands: all that its constructor needs to know.

    Attributes:
        inputs: Features it reads.
        outputs: Features it writes.
        layer: Counted from 0.
        last: Whether its output is the logits.
        key: Of its initial parameters.
    """

    inputs: int
    outputs: int
    layer: int
    last: bool
    key: Key


class Conv(Protocol):
    """A layer. ``hops`` says how many blocks it consumes; 0 means that it looks at rows alone.

    Called with the state (dense; the first layer may get sparse features), one :class:`Hop` a
    block, and the initial state where the trunk has one. Returns the output of every hop, its own
    output last. A conv of several hops also takes them one at a time: ``step(h, k, hop, h0)``, from
    the output of hop k - 1 (the conv's input at k = 0) to that of hop k.
    """

    hops: int

    def __call__(  # noqa: D102
        self, h: Features, hops: Sequence[Hop], h0: Tensor | None
    ) -> tuple[Tensor, ...]: ...
