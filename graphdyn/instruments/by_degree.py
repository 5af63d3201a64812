"""ByDegree: loss and gradient of the targets, class by class of their degrees.

Valid for problems with a graph that know the losses of their targets. A model may do well on average and badly on
nodes with few neighbours (Tang et al. 2020, "Investigating and Mitigating Degree-Related Biases in Graph
Convolutional Networks"). Shapes: T targets.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from graphdyn.estimate import Estimate, Invalid, Reading
from graphdyn.instruments.instrument import Instrument, Need
from graphdyn.instruments.looks import degrees, graph_of, look
from graphdyn.schedule import Auto, Schedule
from graphdyn.snapshot import Snapshot


class ByDegree(Instrument):
    """By class of degrees, named as ``degree 2-5``; in all, of targets whose neighbourhoods are exact.

    ============  ===============================================================================================
    reading       what it is
    ============  ===============================================================================================
    ``loss``      mean loss of the class; standard error over its nodes, as draws of a population
    ``grad``      norm of the derivative of that mean with respect to all trained parameters
    ============  ===============================================================================================

    Classes are deciles of the degree (edges into a node, loops not counted) over the targets; nodes of
    one degree stay together, so that there may be fewer. Where the graph does not fit: targets of a batch,
    and readings that end in ``of a batch``.

    Args:
        classes: Of degrees, at most; each costs one backward pass.
        every: See :class:`Instrument`.

    Attributes:
        reason: Why the last look was not at the whole graph; empty if it was.
    """

    needs = Need.PROBLEM
    every: Schedule = Auto(steps=200)
    full = 5.0

    def __init__(self, *, classes: int = 10, **options: Any):
        super().__init__(**options)
        self.classes, self.reason = classes, ""

    def setup(self, s: Snapshot) -> None:
        """See :meth:`Instrument.setup`."""
        graph_of(s)

    def measure(self, s: Snapshot) -> Reading:
        """See the class.

        Raises:
            Invalid: If the problem does not say which targets there are, or what each loses.
        """
        trace, tag, self.reason = look(s)
        if trace.losses is None or trace.targets is None:
            raise Invalid("the problem does not know the losses of its targets one by one.")
        degree = degrees(graph_of(s))[trace.targets]
        own = [*s.groups.parameters.values()]
        found: dict[str | tuple[str, str], Any] = {}
        for name, rows in classes_of(degree, self.classes).items():
            losses = trace.losses[rows]
            se = losses.detach().double().std() / rows.numel() ** 0.5 if rows.numel() > 1 else None
            found["loss" + tag, name] = Estimate(losses.detach().double().mean(), se, rows.numel())
            grads = torch.autograd.grad(losses.mean(), own, retain_graph=True, allow_unused=True)
            squares = [g.double().square().sum() for g in grads if g is not None]
            found["grad" + tag, name] = torch.stack(squares).sum().sqrt()
        return found


def classes_of(degree: Tensor, most: int) -> dict[str, Tensor]:
    """Places of (T,) degrees by class: quantiles of them, equal ones together.

    Example:
        >>> {k: v.tolist() for k, v in classes_of(torch.tensor([1, 9, 1, 4]), 2).items()}
        {'degree 1': [0, 2], 'degree 4-9': [1, 3]}
    """
    ordered = degree.sort().values
    count = degree.numel()
    ends = {int(ordered[max(0, -(-count * k // most) - 1)]) for k in range(1, most + 1)}
    found, low = {}, -1
    for end in sorted(ends):
        rows = torch.nonzero((degree > low) & (degree <= end)).flatten()
        first, low = int(degree[rows].min()), end
        last = int(degree[rows].max())
        found[f"degree {first}" if first == last else f"degree {first}-{last}"] = rows
    return found
