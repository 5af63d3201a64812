"""What each hop of a model read: the states of a block's sources, from a pass that has happened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from graphdyn.batch import Batch
from graphdyn.graph import Features
from graphdyn.models import APPNP
from graphdyn.models.output import Output
from graphdyn.models.propagate import Rows, source_ids, target_rows


@torch.no_grad()
def read_states(model: Any, batch: Batch, output: Output) -> tuple[Features, ...]:
    """The states that a model's hops read, by the model's own steps between them; nothing is dropped.

    Norms over rows take their statistics from the rows at hand and leave no trace. Rows that a memory
    remembers are not among them: batches with borders are not understood.

    Args:
        model: A :class:`graphdyn.models.Stack` or an :class:`graphdyn.models.APPNP`.
        batch: What it read.
        output: What it said, with hidden states.

    Returns:
        (S, F) a hop, first hop first.
    """
    with unchanged(model):
        if isinstance(model, APPNP):
            plain = replace(batch, dropout=False)
            first = model.mlp.run(batch.x, plain, source_ids(batch), hidden=False).logits
            return (first, *output.hidden[:-1])
        return tuple(_of_stack(model, batch, output.hidden))


def _of_stack(model: Any, batch: Batch, hidden: tuple[Tensor, ...]) -> list[Features]:
    states: list[Features] = []
    rows = Rows(None, source_ids(batch))
    h, _ = model.encode(batch.x, rows)
    for layer, conv in enumerate(model.convs):
        hop = len(states)
        if hop == model.num_hops:
            break
        states += [model.before(h, layer, rows), *hidden[hop : hop + conv.hops - 1]]
        rows = target_rows(batch.block(hop + conv.hops - 1), None)
        h = model.after(hidden[hop + conv.hops - 1], layer, h, rows)
    return states


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Buffers (running statistics) are afterwards what they were."""
    stored = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for buffer, value in stored:
            buffer.copy_(value)
