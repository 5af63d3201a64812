"""What an instrument says: a number with its standard error, a curve, or why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from torch import Tensor

from graphdyn.errors import GraphdynError

Number: TypeAlias = float | int | Tensor


class Estimate(NamedTuple):
    """A measured number. Tensors have no dimension and may lie on a device; nobody waits for them.

    Attributes:
        value: The number.
        se: Its standard error; ``None`` where none is known (an exact number has 0).
        n: Of how many independent draws.
        pred: What theory says it should be; ``None`` without one.
    """

    value: Number
    se: Number | None = None
    n: int | None = None
    pred: Number | None = None


class Curve(NamedTuple):
    """Numbers that belong together: a spectrum, one value a layer.

    Attributes:
        x: Where; ascending.
        y: What, as many.
    """

    x: Sequence[float] | Tensor
    y: Sequence[float] | Tensor


class Invalid(GraphdynError):
    """Why a number does not exist here: one sentence, which the record keeps in its place."""


# By what is measured, or by (what, group of parameters, layer or class of nodes); one of several numbers may be
# missing, with its reason in its place.
Reading: TypeAlias = Mapping[str | tuple[str, str], Number | Estimate | Curve | Invalid]
