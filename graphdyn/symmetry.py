"""Symmetries of a loss under rescaling of parameters, found by measurement, not assumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Symmetry:
    """What leaves the loss as it is: ``theta_p -> exp(s_p eps) theta_p`` for every generator s, at any eps.

    Attributes:
        invariant: Generators without negative entries: sets of parameters whose common scale the loss does
            not see, with integer coefficients by name of a parameter.
        rescaling: Generators of mixed signs: one part may grow as another shrinks.
        silent: Parameters whose gradient is zero whatever they are (a bias in front of a batch norm).
        residual: Largest relative violation of an accepted generator, measured on the loss.
    """

    invariant: tuple[Mapping[str, int], ...]
    rescaling: tuple[Mapping[str, int], ...]
    silent: tuple[str, ...]
    residual: float
