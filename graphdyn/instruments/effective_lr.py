"""EffectiveLR: the learning rate that scale-invariant weights feel, and where it is going.

Valid for sets of weights whose common scale the loss does not see (:class:`graphdyn.SymmetryMap`), under SGD, AdamW and
Lion. Predictions take gradients of different steps as uncorrelated and the learning rate as constant between two
measurements; the norm's own one needs no equilibrium. Source: Li, Lyu & Arora 2020 ("Reconciling Modern Deep Learning
with Traditional Optimization Analyses") for SGD; :mod:`graphdyn.instruments.rules` has the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from graphdyn.estimate import Estimate, Invalid, Number, Reading
from graphdyn.instruments.instrument import Instrument, Need
from graphdyn.instruments.rules import Rule, effective_lr, growth, rule_for
from graphdyn.schedule import Auto
from graphdyn.snapshot import Snapshot
from graphdyn.statistics import RecentMean


class EffectiveLR(Instrument):
    """One reading for each scale-invariant set w, named by its parameters; g its gradient.

    =========================  =========  =========================================================================
    reading                    unit       what it is
    =========================  =========  =========================================================================
    ``norm``, set              |w|        ``|w|`` of the set as one vector. Prediction: carried from the first
                                          measurement by ``d|w|^4/dt = -4 eta lambda |w|^4 / (1 - mu)
                                          + 2 eta^2 |g^|^2 / (1 - mu)^2`` (SGD), ``d|w|^2/dt = -2 eta lambda |w|^2
                                          + eta^2 C`` (AdamW), ``|g^|`` being measured
    ``effective_lr``, set      step^-1    SGD ``eta / ((1 - mu) |w|^2)``; AdamW, Lion ``eta / |w|``. Prediction:
                                          at equilibrium, from the recent mean of ``|g^|^2``; for SGD
                                          ``sqrt(2 eta lambda / ((1 - mu) E|g^|^2))``
    ``gamma``, set             loss^2     SGD alone: ``|w|^4 / eta^2``, prediction as for the norm
    ``intrinsic_lr``, set      step^-1    ``eta lambda``
    ``sphere_gradient``, set   loss^2     ``|g^|^2 = |w|^2 |g|^2``, mean over the latest half of the measurements
    =========================  =========  =========================================================================

    Exact numbers, so without standard errors. Predictions are missing where the table of
    :mod:`graphdyn.instruments.rules` has none. Sets whose members are treated differently are left out.
    """

    needs = Need.UPDATE | Need.SYMMETRY
    every = Auto(steps=1)
    bands = {"norm": 0.02, "effective_lr": 0.04, "gamma": 0.08}

    def __init__(self, **options: Any):
        super().__init__(**options)
        self._squares: dict[str, RecentMean] = {}
        self._carried: dict[str, Tensor] = {}
        self._step: int | None = None

    def setup(self, s: Snapshot) -> None:
        """Find the sets.

        Raises:
            Invalid: If there are none, or nobody knows.
        """
        if not s.find_symmetry().scale_invariant:
            raise Invalid(
                "no set of this model's parameters is scale-invariant, so there is no effective learning rate; "
                "angular_update and conserved_quantity still say how it moves."
            )

    def measure(self, s: Snapshot) -> Reading:
        """See the class.

        Raises:
            Invalid: If the optimiser treats the members of every set differently.
        """
        found: dict[str | tuple[str, str], Number | Estimate] = {}
        reason: Invalid | None = None
        steps = 1 if self._step is None else s.step - self._step
        for name, members in s.find_symmetry().scale_invariant.items():
            try:
                rule = rule_for(s, members)
            except Invalid as error:
                reason = error
                continue
            found |= {
                (what, name): v for what, v in self._of(s, name, members, rule, steps).items()
            }
        if reason is not None and not found:
            raise reason
        self._step = s.step
        return found

    def _of(
        self, s: Snapshot, name: str, members: Sequence[str], rule: Rule, steps: int
    ) -> dict[str, Number | Estimate]:
        assert s.before is not None
        before, norm, grad = (_norm(s, v, members) for v in (s.before, s.weights, s.grad))
        square = (before * grad).square()
        mean = self._squares.setdefault(name, RecentMean()).add(square)
        found: dict[str, Number | Estimate] = {"norm": norm, "sphere_gradient": mean}
        found["intrinsic_lr"] = rule.intrinsic
        lr, count = effective_lr(rule, norm), moving(s, members)
        moves, settles = growth(rule, square, count), growth(rule, mean, count)
        if lr is None or moves is None or settles is None:
            return found if lr is None else found | {"effective_lr": lr}
        start = self._carried.get(name, before**moves.power)
        self._carried[name] = moves.after(start, steps)
        found["norm"] = Estimate(norm, pred=self._carried[name] ** (1 / moves.power))
        settled = effective_lr(rule, settles.equilibrium) if rule.weight_decay else None
        found["effective_lr"] = Estimate(lr, pred=settled)
        if rule.kind == "sgd":
            found["gamma"] = Estimate(norm**4 / rule.lr**2, pred=self._carried[name] / rule.lr**2)
        return found

    def state(self) -> dict[str, Any]:
        """See :meth:`Instrument.state`."""
        squares = {name: mean.state() for name, mean in self._squares.items()}
        return {"squares": squares, "carried": dict(self._carried), "step": self._step}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See :meth:`Instrument.restore`."""
        self._carried, self._step = dict(state["carried"]), state["step"]
        self._squares = {name: RecentMean() for name in state["squares"]}
        for name, mean in self._squares.items():
            mean.restore(state["squares"][name])


def _norm(s: Snapshot, flat: Tensor, names: Sequence[str]) -> Tensor:
    parts = [torch.linalg.vector_norm(flat[s.groups.places[n]], dtype=torch.float64) for n in names]
    return torch.linalg.vector_norm(torch.stack(parts))


def moving(s: Snapshot, names: Sequence[str]) -> Tensor:
    """C: coordinates that an adaptive optimiser moves, which are those that ever had a gradient."""
    counts = []
    for name in names:
        p = s.groups.parameters[name]
        own = s.optimizer.state.get(p, {})
        moment = own.get("exp_avg_sq", own.get("exp_avg"))
        counts.append(torch.ones_like(p).sum() if moment is None else moment.ne(0).sum())
    return torch.stack([c.double() for c in counts]).sum()
