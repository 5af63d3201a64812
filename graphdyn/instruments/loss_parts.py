"""LossParts: how strongly each part of a step's objective pulls, and whether the parts pull together.

Valid where training minimises more than the loss of its batch (a regularizer). Gradients are those of one batch
at the present weights, under its dropout masks and draws, each part weighted as it now is, whether or not a
step would take it. A memory's corrections are not in them.
"""

from __future__ import annotations

from itertools import combinations

import torch

from graphdyn.estimate import Estimate, Invalid, Reading
from graphdyn.instruments.by_group import by_group, grams
from graphdyn.instruments.instrument import Instrument, Need
from graphdyn.snapshot import Snapshot


class LossParts(Instrument):
    r"""Norms of the parts' gradients and cosines between them, by group and in total.

    ============================  ==========================================================
    ``norm_<part>``               \|g_part\|, g the mean over m batches
    ``cosine_<part>_<part>``      <g_a, g_b> / (\|g_a\| \|g_b\|); NaN where one of them is 0
    ============================  ==========================================================

    The sum of the parts' gradients is that of a step which takes them all; steps that alternate take one of
    them at a time. Norms of noisy gradients are too large: \|E g\|^2 + tr Cov / m is measured squared.

    Args:
        m: Batches; independent.
        every: See :class:`Instrument`.
    """

    levels = ({"m": 1},)
    needs = Need.PROBLEM
    cost = 4.0

    def setup(self, s: Snapshot) -> None:
        """See :meth:`Instrument.setup`."""
        if len(s.given().parts) < 2:
            raise Invalid(
                "training minimises nothing but the loss of its batch; there are no parts to compare without a "
                "regularizer."
            )

    def measure(self, s: Snapshot) -> Reading:
        """See :class:`LossParts`."""
        m = self.option("m")
        drawn = [s.part_gradients(s.batch(i)) for i in range(m)]
        names = list(drawn[0])
        mean = torch.stack([torch.stack([d[name] for d in drawn]).mean(0) for name in names])
        gram = grams(s.groups, mean)
        norm = gram.diagonal(dim1=1, dim2=2).sqrt()
        found = {f"norm_{name}": Estimate(norm[:, i], n=m) for i, name in enumerate(names)}
        for i, j in combinations(range(len(names)), 2):
            cosine = gram[:, i, j] / (norm[:, i] * norm[:, j])
            found[f"cosine_{names[i]}_{names[j]}"] = Estimate(cosine, n=m)
        return by_group(s.groups, **found)
