"""Keyed dropout: the mask is a pure function of (key bits, row id, column), and is never stored.

With ``h`` the hash of the row's id under the key, element (r, c) reads the low (even c) or high
(odd c) half of ``mix(h + GOLDEN * (c // 2 + 1))``: the SplitMix64 stream seeded by ``h``, two draws
a word. It stays where that 32-bit draw is at least ``round(p * 2^32)``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from graphdyn.errors import InputError
from graphdyn.kernels import autograd_drop
from graphdyn.kernels.door import eager, expect, same_type
from graphdyn.sparse import Sparse


@eager
def dropout(x: Tensor, p: float, bits: int, ids: Tensor | None = None) -> Tensor:
    """Inverted dropout whose mask is a function of ``bits`` and the row's id alone.

    Args:
        x: (R, ...); trailing axes are flattened to columns.
        p: Probability of 0, in [0, 1). Kept elements are divided by the exact probability to stay,
            1 - round(p 2^32) / 2^32, so that the expectation is x.
        bits: 64 key bits (``Key.bits``).
        ids: (R,) integer id of each row; by default its position.

    Returns:
        Like ``x``; x itself when p is 0.

    Raises:
        InputError: If p lies outside [0, 1) or the ids do not fit.
    """
    return _drop(autograd_drop.Dropout, "dropout", x, p, bits, ids)


@eager
def relu_dropout(x: Tensor, p: float, bits: int, ids: Tensor | None = None) -> Tensor:
    """``dropout(relu(x), ...)`` in one pass that keeps nothing but its output.

    Args:
        x: (R, ...), as for :func:`dropout`.
        p: As for :func:`dropout`.
        bits: As for :func:`dropout`.
        ids: As for :func:`dropout`.

    Returns:
        Like ``x``.

    Raises:
        InputError: If p lies outside [0, 1) or the ids do not fit.
    """
    if threshold_of(p) == 0:
        return x.relu()
    return _drop(autograd_drop.ReluDropout, "relu_dropout", x, p, bits, ids)


@eager
def dropout_values(matrix: Sparse, p: float, bits: int, row_ids: Tensor | None = None) -> Sparse:
    """Keyed dropout of a sparse matrix: entry (r, c) meets the same fate as in its dense form.

    Args:
        matrix: (D, S) with values (E,), or ``None`` for ones.
        p: As for :func:`dropout`.
        bits: As for :func:`dropout`.
        row_ids: (D,) integer id of each row; by default its position.

    Returns:
        The same pattern with the values dropped and scaled; differentiable in the values.

    Raises:
        InputError: If p lies outside [0, 1) or the shapes do not fit.
    """
    threshold = threshold_of(p)
    if threshold == 0:
        return matrix
    csc = matrix.csc
    values = (
        torch.ones(csc.num_edges, device=csc.device) if matrix.values is None else matrix.values
    )
    expect("dropout_values", "values", values, (csc.num_edges,))
    if row_ids is not None:
        expect("dropout_values", "row_ids", row_ids, (csc.num_dst,))
    row = csc.dst if row_ids is None else row_ids[csc.dst]
    dtype, (values,) = same_type("dropout_values", values)
    dropped = autograd_drop.EntryDropout.apply(values, row, csc.indices, threshold, bits)
    return Sparse(csc, dropped.to(dtype))


def _drop(function, name: str, x: Tensor, p: float, bits: int, ids: Tensor | None) -> Tensor:
    threshold = threshold_of(p)
    if threshold == 0:
        return x
    if ids is not None:
        expect(name, "ids", ids, (x.shape[0],))
    dtype, (flat,) = same_type(name, x)
    flat = flat.reshape(x.shape[0], -1) if x.numel() else flat.reshape(x.shape[0], 0)
    return function.apply(flat, ids, threshold, bits).reshape(x.shape).to(dtype)


def threshold_of(p: float) -> int:
    """The 32-bit draw below which an element is dropped."""
    if not 0 <= p < 1:
        raise InputError(f"dropout was given p = {p}; expected a probability in [0, 1).")
    return min(round(p * 2**32), 2**32 - 1)
