"""Normal scores in plain torch, on any device: the same numbers as :mod:`graphdyn.kernels.numba_normal`.

Wichura 1988, "Algorithm AS 241: the percentage points of the normal distribution", routine PPND16: the
inverse of the normal distribution function by rational functions, to about 1e-15. Only additions,
multiplications and divisions: logarithms and square roots of libraries differ in the last bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from graphdyn.kernels.torch_race import log

# Numerator and denominator, highest power first.
CENTRE = (
    (
        2509.0809287301226727,
        33430.575583588128105,
        67265.770927008700853,
        45921.953931549871457,
        13731.693765509461125,
        1971.5909503065514427,
        133.14166789178437745,
        3.387132872796366608,
    ),
    (
        5226.495278852854561,
        28729.085735721942674,
        39307.89580009271061,
        21213.794301586595867,
        5394.1960214247511077,
        687.1870074920579083,
        42.313330701600911252,
        1.0,
    ),
)
NEAR = (
    (
        7.7454501427834140764e-4,
        0.0227238449892691845833,
        0.24178072517745061177,
        1.27045825245236838258,
        3.64784832476320460504,
        5.7694972214606914055,
        4.6303378461565452959,
        1.42343711074968357734,
    ),
    (
        1.05075007164441684324e-9,
        5.475938084995344946e-4,
        0.0151986665636164571966,
        0.14810397642748007459,
        0.68976733498510000455,
        1.6763848301838038494,
        2.05319162663775882187,
        1.0,
    ),
)
FAR = (
    (
        2.01033439929228813265e-7,
        2.71155556874348757815e-5,
        0.0012426609473880784386,
        0.026532189526576123093,
        0.29656057182850489123,
        1.7848265399172913358,
        5.4637849111641143699,
        6.6579046435011037772,
    ),
    (
        2.04426310338993978564e-15,
        1.4215117583164458887e-7,
        1.8463183175100546818e-5,
        7.868691311456132591e-4,
        0.0148753612908506148525,
        0.13692988092273580531,
        0.59983220655588793769,
        1.0,
    ),
)
MIDDLE, CENTRE_SHIFT = 0.425, 0.180625
NEAR_SHIFT, FAR_SHIFT = 1.6, 5.0
ROOT, ROOT_STEPS = 511 << 52, 5  # half of the exponent's bias: 30 % off, and 2e-16 after five steps


def score(p: Tensor) -> Tensor:
    """(...) float64 z with ``Phi(z) = p``, for p in (0, 1)."""
    q = p - 0.5
    tail = root(-log(torch.where(q < 0, p, 1.0 - p)))
    near, far = _ratio(NEAR, tail - NEAR_SHIFT), _ratio(FAR, tail - FAR_SHIFT)
    outer = torch.where(tail <= FAR_SHIFT, near, far)
    centre = q * _ratio(CENTRE, CENTRE_SHIFT - q * q)
    return torch.where(q.abs() <= MIDDLE, centre, torch.where(q < 0, -outer, outer))


def root(x: Tensor) -> Tensor:
    """Square root of positive float64 numbers by Newton's method from what half of the exponent gives."""
    y = ((x.view(torch.int64) >> 1) + ROOT).view(torch.float64)
    for _ in range(ROOT_STEPS):
        y = (y + x / y) * 0.5
    return y


def _ratio(coefficients: tuple[tuple[float, ...], ...], r: Tensor) -> Tensor:
    top, bottom = (torch.full_like(r, c[0]) for c in coefficients)
    for a, b in zip(coefficients[0][1:], coefficients[1][1:]):
        top, bottom = top * r + a, bottom * r + b
    return top / bottom
