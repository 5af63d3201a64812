"""AttentionEntropy: whether attention chooses among neighbours, or averages them.

Valid for layers whose coefficients sum to 1 over the edges of a target: graphdyn's GAT and GATv2, and layers of
PyG that take ``return_attention_weights``. Coefficients are those before dropout, on exact neighbourhoods.
Shapes: E edges, H heads, D targets.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from graphdyn.estimate import Invalid, Reading
from graphdyn.instruments.instrument import Instrument, Need
from graphdyn.instruments.looks import look
from graphdyn.schedule import Auto, Schedule
from graphdyn.sight import Attention, attention_of
from graphdyn.snapshot import Snapshot


class AttentionEntropy(Instrument):
    """By layer, and by head of a layer.

    =============  ==============================================================================================
    reading        what it is
    =============  ==============================================================================================
    ``entropy``    mean over targets v of - sum_u alpha_vu log alpha_vu / log d_v, d_v the number of edges into v
                   (loops that the layer adds among them), over targets with at least two: 1 is the plain
                   mean of the neighbours, 0 a choice of one. By layer: the mean over its heads
    =============  ==============================================================================================

    No standard error: the mean is over all nodes. Where the graph does not fit, over the targets of a batch
    whose neighbourhoods are exact; the reading then ends in ``of a batch``.

    Args:
        every: See :class:`Instrument`.

    Attributes:
        reason: Why the last look was not at the whole graph; empty if it was.
    """

    needs = Need.PROBLEM
    every: Schedule = Auto(steps=100)
    full = 1.0

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.reason = ""

    def measure(self, s: Snapshot) -> Reading:
        """See the class.

        Raises:
            Invalid: If no layer offers coefficients.
        """
        trace, tag, self.reason = look(s)
        found: dict[str | tuple[str, str], Tensor] = {}
        for name, call in trace.calls.items():
            with s.isolated():
                attention = attention_of(call)
            if attention is None:
                continue
            nodes = trace.nodes[name]
            heads = entropy(attention, None if nodes is None else nodes.numel())
            if heads is None:
                continue
            found["entropy" + tag, name] = heads.mean()
            found |= {("entropy" + tag, f"{name} head {k}"): h for k, h in enumerate(heads, 1)}
        if not found:
            raise Invalid(
                "no layer of the model offers attention coefficients of two or more edges a target."
            )
        return found


def entropy(attention: Attention, rows: int | None = None) -> Tensor | None:
    """(H,) mean entropy over log degree of targets with at least two edges; ``None``: there are none.

    Args:
        attention: Of a layer.
        rows: Only these first targets count; ``None``: all.
    """
    target = attention.target.long()
    alpha = attention.alpha.double().view(target.numel(), -1)
    degree = torch.bincount(target, minlength=attention.num_targets)
    sums = torch.zeros(degree.numel(), alpha.shape[1], dtype=alpha.dtype, device=alpha.device)
    sums.index_add_(0, target, -torch.xlogy(alpha, alpha))
    chosen = degree >= 2
    if rows is not None:
        chosen[rows:] = False
    if not chosen.any():
        return None
    return (sums[chosen] / degree[chosen].double().log().unsqueeze(1)).mean(0)
