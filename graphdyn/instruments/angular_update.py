"""AngularUpdate: the angle by which weights turn in a step, the one measure of speed that no optimiser's units touch.

Valid for any parameters. A prediction is made for scale-invariant sets with weight decay, at rotational equilibrium,
under SGD, AdamW and Lion (:mod:`graphdyn.instruments.rules` has formulas and sources); it takes gradients of different
steps as uncorrelated and holds after a few times ``relaxation``. Angles are ``2 asin(|w^ - w^'| / 2)`` in float64: the
arc cosine of a cosine near 1 has no digits left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from graphdyn.estimate import Estimate, Number, Reading
from graphdyn.instruments.instrument import Instrument, Need
from graphdyn.instruments.rules import Rule, equilibrium_angle, growth, rule_or_none
from graphdyn.snapshot import Snapshot
from graphdyn.statistics import RecentMean


class AngularUpdate(Instrument):
    """Angles for every group of parameters, for every scale-invariant set, and for all weights as one vector.

    =============================================  =======  ========================================================
    reading                                        unit     what it is
    =============================================  =======  ========================================================
    ``angle``, group, set, and of all              radian   angle between the weights before and after the last step
    ``rms``, likewise                              radian   root mean square over the latest half of the
                                                            measurements; its prediction is that of equilibrium
    ``relaxation``, set                            step     in which the distance from equilibrium falls by e:
                                                            ``(1 - mu) / (4 eta lambda)`` of ``|w|^4`` under SGD,
                                                            ``1 / (2 eta lambda)`` of ``|w|^2`` under AdamW
    =============================================  =======  ========================================================

    Sets are known where the recorder has a problem; without one there are groups alone. A set takes the place of
    a group of its name. NaN for weights of 0.
    """

    needs = Need.UPDATE | Need.SYMMETRY
    bands = {"rms": 0.03}

    def __init__(self, **options: Any):
        super().__init__(**options)
        self._squares: dict[str, RecentMean] = {}

    def measure(self, s: Snapshot) -> Reading:
        """See the class."""
        assert s.before is not None
        found: dict[str | tuple[str, str], Number | Estimate] = self._of(
            "", s.before, s.weights, None
        )
        sets = {} if s.problem is None else s.find_symmetry().scale_invariant
        for name, members in {**s.groups.members, **sets}.items():
            rule = rule_or_none(s, members) if name in sets else None
            found |= self._of(name, *_pair(s, members), rule)
            found |= _relaxation(name, rule)
        return found

    def _of(
        self, name: str, before: Tensor, now: Tensor, rule: Rule | None
    ) -> dict[str | tuple[str, str], Number | Estimate]:
        turned = angle(before, now)
        mean = self._squares.setdefault(name, RecentMean())
        pred = None if rule is None else equilibrium_angle(rule)
        rms = Estimate(mean.add(turned.square()).sqrt(), n=mean.count, pred=pred)
        own = {"angle": turned, "rms": rms}
        return {(what, name) if name else what: value for what, value in own.items()}

    def state(self) -> dict[str, Any]:
        """See :meth:`Instrument.state`."""
        return {name: mean.state() for name, mean in self._squares.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See :meth:`Instrument.restore`."""
        self._squares = {name: RecentMean() for name in state}
        for name, mean in self._squares.items():
            mean.restore(state[name])


def angle(a: Tensor, b: Tensor) -> Tensor:
    """The angle between two vectors in radians, exact to rounding however small; NaN for a vector of 0."""
    a, b = a.double(), b.double()
    chord = (a / a.norm() - b / b.norm()).norm()
    return 2 * torch.asin((chord / 2).clamp(max=1.0))


def _pair(s: Snapshot, members: Sequence[str]) -> tuple[Tensor, Tensor]:
    assert s.before is not None
    return s.groups.pick(s.before, members), s.groups.pick(s.weights, members)


def _relaxation(name: str, rule: Rule | None) -> dict[str | tuple[str, str], Number | Estimate]:
    one = torch.ones((), dtype=torch.float64)
    moves = None if rule is None or not rule.weight_decay else growth(rule, one, one)
    return {} if moves is None else {("relaxation", name): 1 / moves.rate}
