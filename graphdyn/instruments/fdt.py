"""FDT: fluctuation-dissipation relations: whether the weights have come to rest, statistically.

Valid for any noise and any size of step, once the distribution of the weights no longer changes; that it has not yet is
what a ratio away from 1 says. The form in the displacement needs nothing of the optimiser; that in the gradient is for
SGD with momentum, not Nesterov's. Source: Yaida 2019 ("Fluctuation-dissipation relations for stochastic gradient
descent", equation FDR1), with dampening derived here. With u = w - w' the displacement, E|w'|^2 = E|w|^2 gives
2 E<w, u> = E|u|^2; with a buffer b' = mu b + (1 - d) g and u = eta b' it gives
(1 - d) E<w, g> = (1 + mu) / (2 eta) E|u|^2. Trivial for scale-invariant weights, where <w, g> is the decay alone:
there it compares decay with growth, as :class:`graphdyn.EffectiveLR` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from graphdyn.estimate import Estimate, Reading
from graphdyn.instruments.instrument import Instrument, Need
from graphdyn.instruments.rules import Rule, rule_or_none
from graphdyn.schedule import Auto
from graphdyn.snapshot import Snapshot
from graphdyn.statistics import RecentMean


class FDT(Instrument):
    """Both sides of each relation, averaged over the latest half of the measurements, and their ratio.

    =====================================  ========  ===============================================================
    reading                                unit      what it is
    =====================================  ========  ===============================================================
    ``drift``, group and in total          |w|^2     mean of ``2 <w, u>``, w the weights before the step
    ``spread``, group and in total         |w|^2     mean of ``|u|^2``
    ``ratio``, group and in total          1         ``drift / spread``; prediction 1, when at rest
    ``work``, group and in total           loss      SGD: mean of ``(1 - d) <w, g>``, g with the decay lambda w
    ``heat``, group and in total           loss      SGD: mean of ``(1 + mu) / (2 eta) |u|^2``
    ``sgd_ratio``, group and in total      1         SGD: ``work / heat``; prediction 1, when at rest
    =====================================  ========  ===============================================================

    Means, not sums: a schedule that measures every k steps reads the same, with more noise. Standard errors are not
    given: steps that follow each other are not independent. Ratios are signed, and infinite where nothing moved.
    The second relation is missing in total where one group has it not.
    """

    needs = Need.UPDATE
    every = Auto(steps=1)
    bands = {"ratio": 0.1, "sgd_ratio": 0.1}

    def __init__(self, **options: Any):
        super().__init__(**options)
        self._means: dict[str, RecentMean] = {}

    def measure(self, s: Snapshot) -> Reading:
        """See the class."""
        assert s.before is not None
        w, g, u = s.before.double(), s.grad.double(), -s.update.double()
        pairs = {"wu": (w, u), "uu": (u, u), "wg": (w, g), "ww": (w, w)}
        dots = {what: s.groups.dots(*pair) for what, pair in pairs.items()}
        sides: dict[str, list[Tensor]] = {}
        for name, members in s.groups.members.items():
            own = {what: parts[name] for what, parts in dots.items()}
            sides[name] = [2 * own["wu"], own["uu"], *_gradient_form(own, rule_or_none(s, members))]
        least = min(len(row) for row in sides.values())
        sides[""] = _totals(sides, least)
        found: dict = {}
        for name, row in sides.items():
            mean = self._means.setdefault(name, RecentMean())
            found |= _reading(name, mean.add(torch.stack(row)), mean.count)
        return found

    def state(self) -> dict[str, Any]:
        """See :meth:`Instrument.state`."""
        return {name: mean.state() for name, mean in self._means.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See :meth:`Instrument.restore`."""
        self._means = {name: RecentMean() for name in state}
        for name, mean in self._means.items():
            mean.restore(state[name])


def _gradient_form(dots: Mapping[str, Tensor], rule: Rule | None) -> tuple[Tensor, ...]:
    """Work and heat of a step of SGD; nothing for other rules."""
    if rule is None or rule.kind != "sgd" or rule.nesterov:
        return ()
    sign = -1 if rule.maximize else 1
    kept = 1 - rule.dampening if rule.momentum else 1
    work = kept * (sign * dots["wg"] + rule.weight_decay * dots["ww"])
    return work, (1 + rule.momentum) / (2 * rule.lr) * dots["uu"]


def _totals(sides: Mapping[str, list[Tensor]], least: int) -> list[Tensor]:
    return [torch.stack([row[i] for row in sides.values()]).sum() for i in range(least)]


def _reading(name: str, means: Tensor, count: int) -> dict[str | tuple[str, str], Any]:
    own: dict[str, Any] = {"drift": means[0], "spread": means[1]}
    own["ratio"] = Estimate(means[0] / means[1], n=count, pred=1.0)
    if means.numel() == 4:
        own |= {"work": means[2], "heat": means[3]}
        own["sgd_ratio"] = Estimate(means[2] / means[3], n=count, pred=1.0)
    return {(what, name) if name else what: value for what, value in own.items()}
