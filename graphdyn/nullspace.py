"""Integer vectors that a matrix of measurements sends to zero: the generators of a symmetry.

Shapes: T measurements, G columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

THRESHOLDS = (1e-3, 1e-5, 1e-7, 1e-9)  # of singular values, over the largest: what counts as zero
LEAST = 1e-2  # of what a column could be: the largest singular value, where all columns are null
DENOMINATORS = range(1, 13)
_ZERO = 1e-8


def null_generators(
    rows: np.ndarray, scale: np.ndarray, tolerance: float = 1e-2
) -> list[np.ndarray]:
    """A basis of integer vectors s with ``rows @ s = 0``, each of as few entries as the space allows.

    The null space comes from a singular value decomposition, its reduced form from Gauss-Jordan elimination
    with complete pivoting (any other order of pivots divides by what may be noise). Where the reduced form is
    not rational, the threshold was too high: the next lower one is tried.

    Args:
        rows: (T, G) float64, T at least G.
        scale: (G,) how large each column could be, were nothing to cancel in it; positive.
        tolerance: How far from an integer an entry may be.

    Returns:
        (G,) integers each: vectors without negative entries that share no column come first, then what is
        needed to span the rest.
    """
    _, sizes, right = np.linalg.svd(rows / scale, full_matrices=False)
    whole = max(sizes[0], LEAST * math.sqrt(len(rows)))
    for threshold in THRESHOLDS:
        null = right[sizes < threshold * whole]
        reduced = [_integers(row, tolerance) for row in _unscaled(null, scale)]
        found = [row for row in reduced if row is not None]
        if len(found) == len(reduced) or threshold == THRESHOLDS[-1]:
            return _simplest(np.array(found).reshape(-1, rows.shape[1]))
    raise AssertionError("unreachable")  # the last threshold returns


def _unscaled(null: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Reduced row echelon form by complete pivoting, in the units of the columns as they were."""
    m = null.copy()
    pivots: list[int] = []
    for k in range(len(m)):
        rest = np.abs(m[k:])
        row, column = np.unravel_index(rest.argmax(), rest.shape)
        m[[k, k + row]] = m[[k + row, k]]
        _eliminate(m, k, int(column))
        pivots.append(int(column))
    return m * scale[pivots][:, None] / scale


def _eliminate(m: np.ndarray, row: int, column: int) -> None:
    m[row] /= m[row, column]
    others = np.arange(len(m)) != row
    m[others] -= np.outer(m[others, column], m[row])


def _integers(row: np.ndarray, tolerance: float) -> np.ndarray | None:
    """The row times its least common denominator; ``None`` if it has none."""
    for times in DENOMINATORS:
        scaled = row * times
        whole = np.rint(scaled)
        if np.abs(scaled - whole).max(initial=0.0) < tolerance:
            whole = whole.astype(np.int64)
            return whole // max(1, np.gcd.reduce(whole))
    return None


def _simplest(basis: np.ndarray) -> list[np.ndarray]:
    """See :func:`null_generators`; greedy over circuits, the vectors whose support contains no other's."""
    circuits = sorted(
        (c for block in _blocks(basis) for c in _circuits(block)),
        key=lambda c: (np.count_nonzero(c), np.abs(c).sum(), np.flatnonzero(c).tolist()),
    )
    chosen: list[np.ndarray] = []
    taken = np.zeros(basis.shape[1], dtype=bool)
    for c in circuits:
        if (c >= 0).all() and not taken[c > 0].any():
            chosen.append(c)
            taken |= c > 0
    for c in sorted(circuits, key=lambda c: bool((c >= 0).all())):
        if len(chosen) < len(basis) and np.linalg.matrix_rank([*chosen, c]) > len(chosen):
            chosen.append(c)
    return chosen


def _blocks(basis: np.ndarray) -> Iterator[np.ndarray]:
    """Rows that share columns, directly or through others; the space is the sum of these parts."""
    left = list(range(len(basis)))
    while left:
        block = [left.pop(0)]
        for i in block:  # grows while it is read
            near = [j for j in left if ((basis[i] != 0) & (basis[j] != 0)).any()]
            block += near
            left = [j for j in left if j not in near]
        yield basis[block]


def _circuits(block: np.ndarray) -> Iterator[np.ndarray]:
    """Circuits of the row space: the rows of its reduced forms, for every cyclic order of its columns."""
    columns = np.flatnonzero((block != 0).any(0))
    seen: set[bytes] = set()
    for start in range(len(columns)):
        order = np.roll(columns, -start)
        for c in (*_reduced(block, order), *_reduced(block, order[::-1])):
            if c.tobytes() not in seen:
                seen.add(c.tobytes())
                yield c


def _reduced(block: np.ndarray, order: np.ndarray) -> Iterator[np.ndarray]:
    """Rows of the reduced form with pivots in this order of columns, as integers; the first entry positive."""
    m = block.astype(np.float64)
    done = 0
    for column in order:
        if done == len(m):
            break
        row = done + int(np.abs(m[done:, column]).argmax())
        if abs(m[row, column]) > _ZERO:
            m[[done, row]] = m[[row, done]]
            _eliminate(m, done, int(column))
            done += 1
    for row in m:
        whole = _integers(row, math.sqrt(_ZERO))
        if whole is not None:
            yield whole * int(np.sign(whole[np.flatnonzero(whole)[0]]))
