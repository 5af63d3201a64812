"""SymmetryMap: which rescalings of its parameters a loss does not see, found by measurement.

Valid for any model whose loss can be differentiated twice over the same small random data, see
:func:`graphdyn.symmetry.find_symmetry`, which gives the method and its source. What it finds is a property of the
architecture with its present frozen parts: it looks again whenever a norm goes to evaluation or back, or a parameter
is frozen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from graphdyn.estimate import Estimate, Number, Reading
from graphdyn.groups import Groups
from graphdyn.instruments.instrument import Instrument, Need
from graphdyn.snapshot import Snapshot
from graphdyn.symmetry import Generator, label


class SymmetryMap(Instrument):
    """Symmetries of the loss, and how exactly the gradients of training keep them.

    ==================  ====  =================================================================================
    reading             unit  what it is
    ==================  ====  =================================================================================
    ``invariant``       1     number of sets whose common scale the loss does not see
    ``rescaling``       1     number of generators of mixed signs
    ``silent``          1     number of parameters without a say in the loss
    ``residual``        1     largest relative violation of a generator on random data, with the model's own eps
    ``cosine``, set     1     largest ``|sum_p s_p <g_p, w_p>| / sum_p |s_p| |g_p| |w_p|`` so far, of gradients of
                              training; 0 by theory, and with ``eps`` in a norm as small as eps over its variance
    ==================  ====  =================================================================================

    The generators themselves are in ``Snapshot.symmetry``, which this instrument fills.
    """

    needs = Need.UPDATE | Need.PROBLEM | Need.SYMMETRY
    cost = 30.0

    def __init__(self, **options: Any):
        super().__init__(**options)
        self._worst: dict[str, Tensor] = {}

    def setup(self, s: Snapshot) -> None:
        """Look for the symmetries.

        Raises:
            Invalid: If that cannot be done for this model or problem.
        """
        s.find_symmetry()

    def measure(self, s: Snapshot) -> Reading:
        """See the class."""
        found = s.find_symmetry()
        reading: dict[str | tuple[str, str], Number | Estimate] = {
            "invariant": len(found.invariant),
            "rescaling": len(found.rescaling),
            "silent": len(found.silent),
            "residual": found.residual,
        }
        assert s.before is not None
        for generator in (*found.invariant, *found.rescaling):
            name = label(generator)
            now = cosine(generator, s.groups, s.before, s.grad)
            self._worst[name] = torch.maximum(now, self._worst.get(name, now))
            reading["cosine", name] = self._worst[name]
        return reading

    def state(self) -> dict[str, Any]:
        """See :meth:`Instrument.state`."""
        return {"worst": dict(self._worst)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See :meth:`Instrument.restore`."""
        self._worst = dict(state["worst"])


def cosine(generator: Generator, groups: Groups, weights: Tensor, grad: Tensor) -> Tensor:
    """``|sum_p s_p <g_p, w_p>| / sum_p |s_p| |g_p| |w_p|`` of (P,) weights and their gradient; 0 for no gradient."""
    dots, sizes = [], []
    for name, s in generator.items():
        w, g = weights[groups.places[name]].double(), grad[groups.places[name]].double()
        dots.append(s * (w @ g))
        sizes.append(abs(s) * w.norm() * g.norm())
    most = torch.stack(sizes).sum()
    return torch.where(most > 0, torch.stack(dots).sum().abs() / most, 0.0)
