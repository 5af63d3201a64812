"""LABOR's compiled loops, bit for bit those of :mod:`graphdyn.kernels.torch_labor`.

A row's words are hashed into a small buffer and compared 64 at a time: what is below a threshold becomes the
bits of an integer. Neither the hash nor the comparison has a branch, and both are vectorised, which loops are
whose places are known not to be negative: those over a slice. Of a long row, first those few are set aside that
are likely to be among the k smallest.
"""

# The operations are documented where they are called, in graphdyn.kernels.labor.
# ruff: noqa: D103

from __future__ import annotations

import math

import numba
import numpy as np

from graphdyn.kernels import torch_labor
from graphdyn.kernels.numba_bits import first, lowest16, lowest32, ones
from graphdyn.kernels.numba_keyed import GOLDEN, hash_id, mix
from graphdyn.kernels.numba_loops import jit
from graphdyn.kernels.numba_normal import score
from graphdyn.kernels.numba_prefetch import prefetch
from graphdyn.kernels.numba_views import borrow

_ONE, _ZERO, _S11 = np.uint64(1), np.uint64(0), np.uint64(11)
_SIGN = np.uint64(1 << 63)
_TOP = np.uint64(1 << torch_labor.WORD_BITS)  # above every word
_LOW = np.int64(0xFFFFFFFF)
_CHUNK = 1024  # words hashed at once: they stay in the nearest cache
_SHORT = 32  # rows that are compared as they are
# Rows asked for ahead; how many edges of each; edges in a cache line.
_AHEAD, _REACH, _LINE = 4, 512, 16


@numba.njit(inline="always")
def stream(t, bits):
    return mix(bits + GOLDEN * (np.uint64(t) + _ONE))


@numba.njit(inline="always")
def _open(hashed):
    return (np.float64(np.int64(hashed >> _S11)) + 0.5) * 2.0**-53


@numba.njit
def ordered(z):
    bits = np.float64(z).view(np.uint64)
    return (bits ^ (~_ZERO if bits >> np.uint64(63) else _SIGN)) >> _ONE


@numba.njit
def word_of(t, copy, bits, later, turn):
    own = stream(t, bits if copy == 0 else hash_id(copy, bits))
    if later is None:
        return own >> _ONE
    other = stream(t, later if copy == 0 else hash_id(copy, later))
    return ordered(turn[0] * score(_open(own)) + turn[1] * score(_open(other)))


@jit()
def words(indptr, indices, edge, bits, later, turn, out):
    for i in range(indptr.size - 1):
        before, copy = -1, 0
        for e in range(indptr[i], indptr[i + 1]):
            t = np.int64(indices[edge[e]])
            copy = copy + 1 if t == before else 0
            before = t
            out[e] = word_of(t, copy, bits, later, turn)


@numba.njit
def _hash(indices, start, size, bits, later, turn, word):
    if later is None:
        # Whole vectors: what is hashed beyond the end lies in a neighbour's row and is not looked at.
        padded = (size + 15) & ~15
        part = indices[start : start + (padded if start + padded <= indices.size else size)]
        for j in range(part.size):
            word[j] = stream(part[j], bits) >> _ONE
    else:
        for j in range(size):
            word[j] = word_of(indices[start + j], 0, bits, later, turn)


@numba.njit
def _tell_apart(indices, start, size, before, bits, later, turn, word):
    """Parallel edges get words of their own; ``before`` edges of the row stand in front of these."""
    copy = 0
    while copy < before and indices[start - copy - 1] == indices[start]:
        copy += 1
    for j in range(size):
        if j > 0:
            copy = copy + 1 if indices[start + j] == indices[start + j - 1] else 0
        if copy > 0:
            word[j] = word_of(indices[start + j], copy, bits, later, turn)


@numba.njit(inline="always")
def _fill(indices, start, at, own, offset, size, parallel, bits, later, turn, word):
    """The words of ``size`` edges of a row from ``offset`` on; its loops left out."""
    left = min(max(at - offset, 0), size)
    if left > 0:
        _hash(indices, start + offset, left, bits, later, turn, word)
        if parallel:
            _tell_apart(indices, start + offset, left, offset, bits, later, turn, word)
    if left < size:
        place, right = start + own + offset + left, word[left:]
        _hash(indices, place, size - left, bits, later, turn, right)
        if parallel:
            before = offset + left - at
            _tell_apart(indices, place, size - left, before, bits, later, turn, right)


@numba.njit(inline="always")
def _below(word, offset, size, bound):
    """The 64 words from ``offset`` on as bits: whether each is below the bound; 0 beyond ``size``."""
    part, mask = word[offset : offset + 64], _ZERO
    for b in range(64):
        mask |= np.uint64(part[b] < bound) << np.uint64(b)
    rest = size - offset
    return mask if rest >= 64 else mask & ((_ONE << np.uint64(rest)) - _ONE)


@numba.njit
def _split(word, size, k, step):
    """A bound that exactly k words are below, or (by ties) the largest with fewer: and how many are.

    ``step`` is the mean distance of two neighbours in order: a count that is off by n is mended by n steps.
    """
    low, high, bound = _ZERO, _TOP, step * np.uint64(k)
    below = 0
    while True:
        count = 0
        for offset in range(0, size, 64):
            count += np.int64(ones(_below(word, offset, size, bound)))
        if count == k:
            return bound, count
        if count < k:
            low, below = bound, count
            bound += np.uint64(k - count) * step
        else:
            high = bound
            down = np.uint64(count - k) * step
            bound = bound - down if down < bound else _ZERO
        if high - low <= _ONE:
            return low, below
        if bound <= low or bound >= high:
            bound = low + ((high - low) >> _ONE)


@numba.njit
def _gather(indices, row, k, step, parallel, bits, later, turn, word, near, place):
    """Those edges of a long row whose words are below a generous quantile, at least k of them."""
    start, rest, at, own = row
    generous = np.uint64(k + 2 * math.sqrt(k) + 2)
    while True:
        bound = _TOP if generous >= np.uint64(rest) else step * generous
        found = 0
        for offset in range(0, rest, _CHUNK):
            size = min(_CHUNK, rest - offset)
            _fill(indices, start, at, own, offset, size, parallel, bits, later, turn, word)
            for block in range(0, size, 64):
                mask = _below(word, block, size, bound)
                while mask:
                    j = block + np.int64(first(mask))
                    mask &= mask - _ONE
                    near[found], place[found] = word[j], offset + j
                    found += 1
        if found >= k:
            return found
        generous *= np.uint64(2)


@numba.njit(inline="always")
def _put(mask, offset, place, row, e, indices, factor, edge, source, scale):
    """The edges whose bits are set, from ``e`` on."""
    start, _, at, own = row
    while mask:
        j = offset + np.int64(first(mask))
        mask &= mask - _ONE
        j = j if place is None else place[j]
        j += start + (own if j >= at else 0)
        edge[e], source[e], scale[e] = j, indices[j], factor
        e += 1
    return e


@numba.njit
def _take_exactly(word, size, k, step, place, row, e, indices, factor, edge, source, scale):
    bound, count = _split(word, size, k, step)
    ties = k - count
    for offset in range(0, size, 64):
        mask = _below(word, offset, size, bound)
        if ties > 0:
            same = _below(word, offset, size, bound + _ONE) & ~mask
            while same and ties > 0:
                mask |= same & (~same + _ONE)
                same &= same - _ONE
                ties -= 1
        e = _put(mask, offset, place, row, e, indices, factor, edge, source, scale)


@numba.njit(inline="always")
def _take(word, size, k, step, place, row, e, indices, factor, edge, source, scale):
    """The k smallest words: their edges, ascending."""
    mask = _ZERO
    if size <= 16:
        mask = lowest16(word, size, k)
    elif size <= 32:
        mask = lowest32(word, size, k)
    if np.int64(ones(mask)) == k:
        _put(mask, 0, place, row, e, indices, factor, edge, source, scale)
    else:
        _take_exactly(word, size, k, step, place, row, e, indices, factor, edge, source, scale)


@numba.njit(inline="always")
def _copy(indices, begin, size, e, factor, edge, source, scale):
    for j in range(size):
        edge[e + j], source[e + j], scale[e + j] = begin + j, indices[begin + j], factor


@numba.njit(inline="always")
def _kind(rest, k):
    """By length; rows of one kind take the same branches."""
    if k < 0 or rest <= k:
        return 0
    if rest <= 64:
        return (rest + 15) >> 4
    return 5 if rest <= 128 else 6 if rest <= 512 else 7


@numba.njit
def _by_kind(rows, k):
    """The rows, those of one kind side by side: the processor guesses branches by those just before."""
    count = np.zeros(9, np.int64)
    for i in range(rows.shape[0]):
        count[_kind(rows[i, 1], k) + 1] += 1
    count = count.cumsum()
    order = np.empty(rows.shape[0], np.int64)
    for i in range(rows.shape[0]):
        kind = _kind(rows[i, 1], k)
        order[count[kind]] = i
        count[kind] += 1
    return order


@jit()
def fill_smallest(
    indices, rows, k, parallel, bits, later, turn, longest, out_indptr, edge, source, scale
):
    one, length = scale.dtype.type(1), indices.size
    words_, near_ = np.empty(_CHUNK + 64, np.uint64), np.empty(longest + 64, np.uint64)
    place_ = np.empty(longest + 64, np.int64)
    word, near, place = borrow(words_), borrow(near_), borrow(place_)
    indices, edge, source, scale = borrow(indices), borrow(edge), borrow(source), borrow(scale)
    order = _by_kind(rows, k)
    for n in range(order.size):
        i = order[n]
        if n + _AHEAD < order.size:
            # The line behind the row too: the row may reach into it, and the hash does.
            begin, size = rows[order[n + _AHEAD], 0], rows[order[n + _AHEAD], 1]
            for e in range(begin, min(begin + min(size, _REACH) + _LINE, length), _LINE):
                prefetch(indices, e)
        start, rest = rows[i, 0], rows[i, 1]
        at, own = rows[i, 2] >> 32, rows[i, 2] & _LOW
        e = out_indptr[i]
        _copy(indices, start + at, own, e, one, edge, source, scale)
        e += own
        if k < 0 or rest <= k:
            _copy(indices, start, at, e, one, edge, source, scale)
            _copy(indices, start + at + own, rest - at, e + at, one, edge, source, scale)
            continue
        factor = scale.dtype.type(rest / k)
        step = _TOP // np.uint64(rest)
        row = (start, rest, at, own)
        if rest <= _SHORT:
            _fill(indices, start, at, own, 0, rest, parallel, bits, later, turn, word)
            _take(word, rest, k, step, None, row, e, indices, factor, edge, source, scale)
        else:
            found = _gather(indices, row, k, step, parallel, bits, later, turn, word, near, place)
            _take(near, found, k, step, place, row, e, indices, factor, edge, source, scale)
    return words_.size + near_.size + place_.size  # what was borrowed lives until here


@jit()
def solve(indptr, weight, inverse, k, out):
    for v in range(out.size):
        begin, end = indptr[v], indptr[v + 1]
        count, far = 0, 0.0
        top_weight, top_square, top_mass = 0.0, 0.0, 0.0
        for e in range(begin, end):
            if weight[e] > 0:
                square = weight[e] * weight[e]
                count += 1
                far = max(far, inverse[e])
                top_weight = max(top_weight, weight[e])
                top_square = max(top_square, square)
                top_mass = max(top_mass, square * inverse[e])
        if k < 0 or count <= k:
            out[v] = 1.0 / far
            continue
        bits = 0
        while count >> bits:
            bits += 1
        units = np.float64(np.int64(1) << (61 - bits))
        per_weight, per_square, per_mass = units / top_weight, units / top_square, units / top_mass
        total = np.int64(0)
        for e in range(begin, end):
            if weight[e] > 0:
                total += np.int64(np.rint(weight[e] * per_weight))
        everything = np.float64(total) / per_weight
        excess = everything * everything * (1.0 / k - 1.0 / count)
        y = np.inf
        while True:
            squares, masses = np.int64(0), np.int64(0)
            for e in range(begin, end):
                if weight[e] > 0 and y * inverse[e] > 1.0:
                    square = weight[e] * weight[e]
                    squares += np.int64(np.rint(square * per_square))
                    masses += np.int64(np.rint(square * inverse[e] * per_mass))
            lower = (excess + np.float64(squares) / per_square) / (np.float64(masses) / per_mass)
            if not lower < y:
                break
            y = lower
        out[v] = y
