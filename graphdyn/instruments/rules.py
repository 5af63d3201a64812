"""How an optimiser treats a set of parameters, and where that leads a set whose scale the loss does not see.

Predictions are for scale-invariant sets (L(c w) = L(w)) under a constant learning rate eta and weight decay lambda,
to leading order in eta lambda, gradients of different steps being uncorrelated. SGD: Li & Arora 2020, Li, Lyu &
Arora 2020; momentum and AdamW: Kosson, Messmer & Jaggi 2024 ("Rotational equilibrium"); derived here: Nesterov, from
the impulse response of its buffer, and Lion, whose signs are correlated over time by the arcsine law (taking the
sign as linear, as is usual, is off by 5 % of the angle at b1 = b2 = 0.9). With g^ = |w| g, the gradient on the unit
sphere, C coordinates, and S = sum_k (2 / pi) asin(rho_k) over the autocorrelation of what Lion takes the sign of:

=======  ==============================================  ====================================================
rule     RMS angle of a step                             norm
=======  ==============================================  ====================================================
SGD      sqrt(2 eta lambda / (1 + mu))                   |w|^4 = eta E|g^|^2 / (lambda (1 - mu)
                                                         (2 - eta lambda / (1 + mu)))
Nesterov sqrt(2 eta lambda (1 + 2 mu - 2 mu^3)/(1 + mu)) as SGD
AdamW    sqrt(2 eta lambda (1 - b1) / (1 + b1))          |w|^2 = eta C / (2 lambda)
Lion     sqrt(2 eta lambda / S)                          |w|^2 = eta C S / (2 lambda)
=======  ==============================================  ====================================================

Adam with coupled decay has no closed form: where it goes depends on the size of the gradients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from graphdyn.estimate import Invalid, Number
from graphdyn.snapshot import Snapshot

SIGN_LIKE = ("adamw", "lion")  # steps whose length does not follow that of the gradient


@dataclass(frozen=True)
class Rule:
    """The options in force for a set of parameters.

    Attributes:
        kind: ``sgd | adamw | lion``, or the name of another class of optimisers in lower case. Adam whose
            decay is decoupled, or 0, is ``adamw``.
        lr: Learning rate; a number, or a tensor that a captured step reads.
        weight_decay: lambda.
        momentum: mu of SGD.
        dampening: Of SGD's momentum.
        nesterov: Whether SGD looks ahead.
        betas: Of Adam and Lion.
        maximize: Whether steps follow the gradient.
    """

    kind: str
    lr: Number
    weight_decay: float = 0.0
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False
    betas: tuple[float, float] = (0.0, 0.0)
    maximize: bool = False

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Rule:
        """From an optimiser's options and its name, ``optimizer``, see :attr:`Snapshot.settings`."""
        kind = str(options["optimizer"]).lower()
        known = {name: options[name] for name in _OPTIONS if name in options}
        decoupled = options.get("decoupled_weight_decay", False) or not known.get("weight_decay")
        if kind == "adam" and decoupled:
            kind = "adamw"
        if kind == "adamw" and options.get("amsgrad"):
            kind = "amsgrad"
        if kind != "sgd":
            known = {
                k: v for k, v in known.items() if k not in ("momentum", "dampening", "nesterov")
            }
        return cls(kind, **known)

    @property
    def rate(self) -> Number:
        """The learning rate eta, of which dampening takes a share."""
        return self.lr * (1 - self.dampening) if self.momentum else self.lr

    @property
    def intrinsic(self) -> Number:
        """The intrinsic learning rate, eta lambda."""
        return self.rate * self.weight_decay


_OPTIONS = ("lr", "weight_decay", "momentum", "dampening", "nesterov", "betas", "maximize")


def rule_for(s: Snapshot, names: Sequence[str]) -> Rule:
    """The rule of a set of parameters.

    Args:
        s: Gives the optimiser and what it was told.
        names: Of parameters.

    Raises:
        Invalid: If the optimiser treats them differently, or does not train them all.
    """
    of = {id(p): group for group in s.optimizer.param_groups for p in group["params"]}
    group = next(g for g, members in s.groups.members.items() if names[0] in members)
    # Whose options settings hold.
    first = of.get(id(s.groups.parameters[s.groups.members[group][0]]))
    for name in names:
        own = of.get(id(s.groups.parameters[name]))
        if own is None or first is None:
            raise Invalid(f"the optimiser does not train {name}.")
        for option in _OPTIONS:
            a, b = own.get(option), first.get(option)
            if a is not b and a != b:
                raise Invalid(
                    f"{option} is not the same for {' and '.join(names)} and what shares their group; "
                    "give the recorder groups= that follow those of the optimiser."
                )
    options = s.settings[group]
    return Rule.of(options)


def rule_or_none(s: Snapshot, names: Sequence[str]) -> Rule | None:
    """As :func:`rule_for`, for quantities that exist without one."""
    try:
        return rule_for(s, names)
    except Invalid:
        return None


def equilibrium_angle(rule: Rule) -> Number | None:
    """RMS angle of a step in radians, see the table; ``None`` where nothing is known or nothing decays."""
    factor = _angle_factor(rule)
    return None if factor is None or not rule.weight_decay else (rule.intrinsic * factor) ** 0.5


def _angle_factor(rule: Rule) -> float | None:
    """The squared angle over eta lambda."""
    (b1, b2), mu = rule.betas, rule.momentum
    if rule.kind == "sgd":
        return 2 * (1 + 2 * mu - 2 * mu**3 if rule.nesterov else 1.0) / (1 + mu)
    if rule.kind == "adamw":
        return 2 * (1 - b1) / (1 + b1)
    if rule.kind == "lion":
        return 2 / sign_spectrum(b1, b2)
    return None


@cache
def sign_spectrum(b1: float, b2: float) -> float:
    """S: the sum over all lags of the correlation of ``sign(b1 m + (1 - b1) g)``, g white and normal.

    m is the average of past g with weights (1 - b2) b2^k. Correlations rho of normal numbers become
    (2 / pi) asin(rho) of their signs (Van Vleck).
    """
    last, tail = 1 - b1, b1 * (1 - b2)  # coefficients of g, now and one step ago
    variance = last**2 + tail**2 / (1 - b2**2)
    total, lag = 1.0, 0
    correlation = (last * tail + tail**2 * b2 / (1 - b2**2)) / variance
    while correlation * b2**lag > 1e-9:
        total += 4 / math.pi * math.asin(correlation * b2**lag)
        lag += 1
    return total


@dataclass(frozen=True)
class Growth:
    """``d/dt |w|^power = push - rate |w|^power``, t in steps: how the norm of a scale-invariant set moves.

    Attributes:
        power: 4 for SGD, whose steps shrink as 1 / |w|; 2 where the length of a step is given.
        rate: Of decay; 1 / ``rate`` steps is how long the past is remembered.
        push: Growth by the steps themselves.
    """

    power: int
    rate: Tensor
    push: Tensor

    def after(self, value: Tensor, steps: int) -> Tensor:
        """|w|^power after so many steps; without decay it grows linearly."""
        fallen = self.rate * steps
        share = torch.where(fallen > 0, -torch.expm1(-fallen) / fallen, 1.0)
        return value * torch.exp(-fallen) + self.push * steps * share

    @property
    def equilibrium(self) -> Tensor:
        """|w| where growth and decay meet; infinite without decay."""
        return (self.push / self.rate) ** (1 / self.power)


def growth(rule: Rule, square: Tensor, count: Tensor) -> Growth | None:
    """How the norm moves; ``None`` where nothing is known.

    Args:
        rule: Of the optimiser.
        square: E|g^|^2, which SGD needs.
        count: C, the coordinates that move, which the others need.
    """
    eta, decay = rule.rate, rule.weight_decay
    intrinsic = torch.as_tensor(rule.intrinsic, dtype=torch.float64)
    if rule.kind == "sgd":
        kept = 1 - rule.momentum
        exact = 1 - intrinsic / (2 * (1 + rule.momentum))  # of the discrete equilibrium
        return Growth(4, 4 * intrinsic / kept * exact, 2 * (eta / kept) ** 2 * square)
    if rule.kind == "adamw":
        return Growth(2, 2 * intrinsic, eta**2 * count)
    if rule.kind == "lion" and decay:
        factor = _angle_factor(rule)
        assert factor is not None
        return Growth(2, 2 * intrinsic, 2 * eta**2 * count / factor)
    return None


def effective_lr(rule: Rule, norm: Tensor) -> Tensor | None:
    """What the learning rate is on the unit sphere.

    SGD: eta / ((1 - mu) |w|^2). AdamW, Lion: eta / |w|, as the length of their steps is given.
    """
    if rule.kind == "sgd":
        return rule.rate / ((1 - rule.momentum) * norm.square())
    return rule.rate / norm if rule.kind in SIGN_LIKE else None
