"""Single numbers from a key, on the host: no device is waited for."""

from __future__ import annotations

from graphdyn.keys import Key


def uniform(key: Key) -> float:
    """In [0, 1), with 53 random bits."""
    return (key.bits >> 11) * 2.0**-53


def coin(key: Key) -> bool:
    """Fair."""
    return key.bits >> 63 == 1


def beta(key: Key, alpha: float) -> float:
    """From Beta(alpha, alpha), by its inverse distribution function."""
    if alpha == 1:
        return uniform(key)
    from scipy.special import betaincinv

    return float(betaincinv(alpha, alpha, uniform(key)))
