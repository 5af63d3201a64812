"""Remembered outputs as states: what stands beside the fresh rows that a layer reads.

A memory keeps what each hop wrote before norm and activation. Read again, it passes the norm and the
activation of today, with the statistics of the fresh rows: remembered rows never have a say in them.
Shapes: M remembered rows, F features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from graphdyn.batch import Block, Border
from graphdyn.graph import Features
from graphdyn.kernels.draw import take_rows
from graphdyn.kernels.extend import extend, room
from graphdyn.keys import Key
from graphdyn.models.norms import Moments, measure
from graphdyn.models.propagate import Rows, dense


class Past:
    """The remembered side of one forward pass.

    Args:
        model: The trunk, a :class:`graphdyn.models.Stack`.
        first: (S0, F) its first state, which skips may reach back to.
        key: Of dropout masks; ``None`` when nothing is dropped.
    """

    def __init__(self, model: Any, first: Features, key: Key | None):
        self.model, self.first, self.key = model, first, key
        self.dtype = next(model.parameters()).dtype
        self.moments: dict[int, Moments | None] = {}
        # Of the layer before: where its border's features stand, which layer it was, what it read.
        self.below: tuple[Tensor, int, Tensor] | None = None

    def note(self, z: Tensor, layer: int, weight: Tensor | None) -> None:
        """Keep the statistics of fresh rows.

        Args:
            z: (N, F) fresh output of the layer before.
            layer: The layer that will read it.
            weight: (N,) weights of the rows in a weighted batch norm.
        """
        self.moments[layer] = measure(self.model.norm_of(layer), z, weight)

    def attach(self, source: Any, block: Block, layer: int) -> Any:
        """The sources of a block: fresh rows as the layer reads them, and below them its border."""
        if block.border is None:
            return source
        fresh = dense(source)
        space = room(fresh, block.border.num_nodes)
        below = space[fresh.shape[0] :]
        state = self.state(block, layer, below if fresh.dtype == self.dtype else None)
        if state.data_ptr() != below.data_ptr():
            below.copy_(state)
        return extend(fresh, space)

    @torch.no_grad()
    def state(self, block: Block, layer: int, out: Tensor | None) -> Tensor:
        """(M, F) the border of a block as a layer reads it; in ``out``, where that saves a pass."""
        border = block.border
        assert border is not None
        ids = block.border_id
        key = self.key if border.dropout else None
        start, h = self._base(border, layer)
        for before, z in enumerate(border.states[start - layer :], start):
            # Only the last may be written in place: those before it are still read.
            last = before + 1 == layer
            rows = Rows(key, ids, None, self.moments.get(before + 1), out if last else None)
            h = self.model.after(z.to(self.dtype), before, h, rows)
        self.below = (border.first, layer, h)
        return self.model.before(h, layer, Rows(key, ids, None, self.moments.get(layer), out))

    def _base(self, border: Border, layer: int) -> tuple[int, Any]:
        """The lowest state that must be added to, and what stands below it.

        Where a skip adds every state and layers share a border, that of the layer before has all but one.
        """
        start = layer - len(border.states)
        if len(border.states) > 1 and self.below is not None:
            first, done, h = self.below
            if first is border.first and done == layer - 1:
                return done, h
        if start == 0 and reads_first(self.model):
            return start, take_rows(self.first, border.first)
        return start, None


def reads_first(model: Any) -> bool:
    """Whether the state of a remembered node may hold its first state, so that its features are read.

    Identity skips in order *post* add every state below; under all other skips outputs alone make a state.
    """
    options = model.options
    return options.skip == "identity" and not options.pre
