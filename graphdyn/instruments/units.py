"""Units: how the activations behind the layers work: dead ones, dormant ones, what they read, what turns over.

Valid for models whose activation function follows a message-passing layer (and perhaps a norm), looked at without
dropout behind it. A unit is dead if it is 0 on all nodes that were looked at: the whole graph, or where it
does not fit all rows of several batches together; a unit that is silent on one batch is not dead. Exact zeros
need an activation that has them (relu); ``dormant`` does not. Shapes: N nodes, F units.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from graphdyn.estimate import Invalid, Reading
from graphdyn.instruments.instrument import Instrument, Need
from graphdyn.schedule import Auto, Schedule
from graphdyn.sight import Unit
from graphdyn.snapshot import Snapshot


class Units(Instrument):
    """By layer.

    ============  ===============================================================================================
    reading       what it is
    ============  ===============================================================================================
    ``dead``      share of the units that are 0 on all nodes
    ``dormant``   share of the units with mean |h_j| at most ``tau`` times the mean of it over the layer's
                  units (Sokar et al. 2023, "The Dormant Neuron Phenomenon", definition 3.1); dead ones among them
    ``mean``      of what activations read, over nodes and units
    ``var``       mean over units of the variance over nodes
    ``kurtosis``  mean over units of the fourth standardised moment over nodes (normal: 3); units that are
                  constant are left out
    ``flips``     share of the (node, unit) pairs whose input has changed its sign since the last measurement;
                  of the whole graph alone, dropout masks being the same at both
    ============  ===============================================================================================

    No standard errors on the whole graph: nodes are all there are. Of batches, readings end in ``of batches``.

    Args:
        tau: Below it a unit is dormant.
        watched: Pairs whose signs are kept belong to so many nodes at most, evenly spaced.
        every: See :class:`Instrument`.

    Attributes:
        reason: Why the last look was not at the whole graph; empty if it was.
    """

    needs = Need.PROBLEM
    every: Schedule = Auto(steps=100)
    levels = ({"m": 8}, {"m": 4}, {"m": 2})
    full = 2.0

    def __init__(self, *, tau: float = 0.025, watched: int = 4096, **options: Any):
        super().__init__(**options)
        self.tau, self.watched, self.reason = tau, watched, ""
        self._signs: dict[str, Tensor] = {}

    def measure(self, s: Snapshot) -> Reading:
        """See the class.

        Raises:
            Invalid: If no activation follows a layer, or the model does not show its layers.
        """
        units, tag = self._units(s)
        if not units:
            raise Invalid("no activation function was seen behind a layer of this model.")
        found: dict[str | tuple[str, str], Any] = {}
        for layer, unit in units.items():
            own = {"dead": dead(unit.post), "dormant": dormant(unit.post, self.tau)}
            own |= moments(unit.pre)
            found |= {(name + tag, layer): value for name, value in own.items()}
            if not tag:
                found |= self._flips(layer, unit.pre)
        return found

    def _units(self, s: Snapshot) -> tuple[dict[str, Unit], str]:
        """Of the whole graph, or of several batches below each other."""
        try:
            traces, tag, self.reason = [s.trace("full")], "", ""
        except Invalid as reason:
            traces = [s.trace("batch", i) for i in range(self.option("m"))]
            tag, self.reason = " of batches", str(reason)
        rows = [
            {n: Unit(t.cut(n, u.pre), t.cut(n, u.post)) for n, u in t.units.items()} for t in traces
        ]
        names = rows[0].keys()
        return {n: Unit(*map(torch.cat, zip(*(r[n] for r in rows)))) for n in names}, tag

    def _flips(self, layer: str, pre: Tensor) -> dict[tuple[str, str], Tensor]:
        count = min(self.watched, pre.shape[0])
        at = torch.linspace(0, pre.shape[0] - 1, count, device=pre.device).round().long()
        before, now = self._signs.get(layer), pre[at] > 0
        self._signs[layer] = now
        if before is None or before.shape != now.shape:
            return {}
        return {("flips", layer): (now != before.to(now.device)).double().mean()}

    def state(self) -> dict[str, Any]:
        """See :meth:`Instrument.state`."""
        return dict(self._signs)

    def restore(self, state: Mapping[str, Any]) -> None:
        """See :meth:`Instrument.restore`."""
        self._signs = dict(state)


def dead(post: Tensor) -> Tensor:
    """Share of the columns of (N, F) activations that are 0 everywhere."""
    return (post == 0).all(0).double().mean()


def dormant(post: Tensor, tau: float) -> Tensor:
    """Share of the columns whose mean absolute value is at most tau times the mean of these."""
    size = post.double().abs().mean(0)
    return (size <= tau * size.mean()).double().mean()


def moments(pre: Tensor) -> dict[str, Tensor]:
    """Mean, variance and kurtosis of (N, F) columns, averaged over columns; see :class:`Units`."""
    x = pre.double()
    centred = x - x.mean(0)
    var = centred.square().mean(0)
    found = {"mean": x.mean(), "var": var.mean()}
    varies = var > torch.finfo(pre.dtype).eps ** 2 * x.square().mean(0)
    if varies.any():
        fourth = centred.pow(4).mean(0)[varies] / var[varies].square()
        found["kurtosis"] = fourth.mean()
    return found
