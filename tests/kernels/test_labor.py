"""LABOR's kernels: r_t in whole numbers, the k smallest of every row, the equation of c; back-ends agree."""

import math

import numpy as np
import pytest
import torch
from samplers.graphs import AWKWARD, hub
from scipy.optimize import brentq
from scipy.special import ndtri
from scipy.stats import chi2

from graphdyn.kernels import numba_bits, numba_labor, numba_normal, torch_labor
from graphdyn.kernels.draw import find_loops
from graphdyn.kernels.labor import Uniforms, draw_smallest, has_parallel, limits, solve, words
from graphdyn.kernels.torch_normal import score
from graphdyn.keys import Key
from graphdyn.sparse import CSC, compress

MASK, GOLDEN = (1 << 64) - 1, 0x9E3779B97F4A7C15
LAWS = {"plain": Uniforms(0x8BADF00D5EED0001), "turned": Uniforms(12345, 2**63 + 9, 0.7)}


def mixed(z):
    """SplitMix64's finaliser on Python integers."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def number(t, copy, bits):
    """64 random bits of a source: the t-th output of SplitMix64, of a generator of its own for each copy."""
    if copy:
        bits = mixed(((mixed(copy + GOLDEN & MASK) ^ bits) + GOLDEN) & MASK)
    return mixed((bits + GOLDEN * (t + 1)) & MASK)


def uniform(t, copy, law):
    """r_t as a number that only its order gives a meaning."""
    if law.later is None:
        return number(t, copy, law.bits)
    first, second = (
        ndtri(((number(t, copy, b) >> 11) + 0.5) / 2**53) for b in (law.bits, law.later)
    )
    return math.cos(law.angle) * first + math.sin(law.angle) * second


def crowded(n=40, edges=4000, seed=0):
    """Rows of every length, with loops and parallel edges."""
    rng = np.random.default_rng(seed)
    src, dst = rng.random(edges) ** 2 * n, rng.random(edges) ** 4 * n
    return compress(src.astype(np.int64), dst.astype(np.int64), n, n)[0]


def lengths(sizes=(1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 128, 129, 1024, 1025, 1500, 3000)):
    """A row of each length; sources are distinct, and ids far apart."""
    indptr = torch.tensor([0, *sizes]).cumsum(0).int()
    source = torch.cat([torch.arange(n) * 7 + 100 for n in sizes]).int()
    n = 30_000
    indptr = torch.cat([indptr, indptr[-1:].expand(n - len(sizes))])
    return CSC(indptr, source, n)


GRAPHS = {
    **{name: lambda name=name: AWKWARD[name]().csc for name in AWKWARD},
    "hub": lambda: hub(3000).csc,
    "crowded": crowded,
    "lengths": lengths,
}


def expected_row(csc, v, k, law):
    """Edges of row v by sorting Python numbers: loops, then the k smallest, ascending."""
    row = list(range(int(csc.indptr[v]), int(csc.indptr[v + 1])))
    source = csc.indices.tolist()
    rest, copies = [e for e in row if source[e] != v], {}
    keyed = []
    for e in rest:
        copy = copies[source[e]] = copies.get(source[e], -1) + 1
        keyed.append((uniform(source[e], copy, law), e))
    chosen = rest if k < 0 else sorted(e for _, e in sorted(keyed)[:k])
    return [e for e in row if source[e] == v], chosen, len(rest)


def check_rows(csc, k, law, draw, targets):
    for i, v in enumerate(targets.tolist()):
        own, chosen, rest = expected_row(csc, v, k, law)
        first, last = int(draw.indptr[i]), int(draw.indptr[i + 1])
        assert draw.edge[first:last].tolist() == own + chosen
        factor = rest / k if 0 < k < rest else 1.0
        scales = [1.0] * len(own) + [factor] * len(chosen)
        assert draw.scale[first:last].tolist() == pytest.approx(scales, rel=1e-6)
    assert torch.equal(csc.indices[draw.edge.long()], draw.src)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", ["parallel", "loops", "directed", "crowded", "lengths"])
def test_each_row_keeps_its_smallest(name, law):
    csc = GRAPHS[name]()
    small = 17 if name == "lengths" else csc.num_dst
    targets = torch.arange(small).flip(0)
    if law == "turned":
        targets = targets[-12:]
    for k in (-1, 1, 2, 5, 10, 40):
        parallel = has_parallel(csc)
        draw = draw_smallest(csc, find_loops(csc), targets, k, LAWS[law], parallel=parallel)
        check_rows(csc, k, LAWS[law], draw, targets)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", GRAPHS)
def test_numba_and_torch_draw_the_same(name, law):
    csc, targets = GRAPHS[name](), torch.arange(GRAPHS[name]().num_dst)
    loops, parallel = find_loops(csc), has_parallel(csc)
    bits, later, angle = LAWS[law]
    for k in (-1, 1, 2, 3, 7, 15, 33, 200):
        for seed in range(3):
            uniforms = Uniforms(bits + seed, later, angle)
            ours = draw_smallest(csc, loops, targets, k, uniforms, parallel=parallel)
            args = (csc, loops, targets, k, *uniforms[:2], uniforms.turn)
            indptr, edge, scale = torch_labor.draw_smallest(*args)
            assert torch.equal(ours.indptr, indptr)
            assert torch.equal(ours.edge.long(), edge)
            assert torch.equal(ours.scale, scale)


def test_ties_go_to_the_first_edges():
    # Normal numbers times 0 are -0 or 0: two words for all.
    csc, turn, targets = lengths(), (0.0, 0.0), torch.arange(17)
    size = csc.indptr[1:18] - csc.indptr[:17]
    rows = torch.stack([csc.indptr[:17], size, torch.zeros(17)], 1).long()
    word = torch_labor.words(csc.indices, torch.zeros_like(csc.indices), 1, 2, turn).tolist()
    assert len(set(word)) == 2
    for k in (1, 3, 14, 20, 70):
        indptr, edge, _ = torch_labor.draw_smallest(csc, None, targets, k, 1, 2, turn)
        ours, source = torch.empty(2, len(edge), dtype=torch.int32)
        law = (np.uint64(1), np.uint64(2), turn)
        out = (indptr.numpy(), ours.numpy(), source.numpy(), torch.empty(len(edge)).numpy())
        numba_labor.fill_smallest(csc.indices.numpy(), rows.numpy(), k, False, *law, 3000, *out)
        assert torch.equal(ours.long(), edge)
        row = [range(int(start), int(start + n)) for start, n, _ in rows]
        expected = [sorted(sorted(edges, key=lambda e: word[e])[:k]) for edges in row]
        assert edge.tolist() == [e for edges in expected for e in edges]


@pytest.mark.parametrize("lanes", [16, 32])
def test_the_smallest_of_a_few_by_comparing_all(lanes):
    import numba

    lowest = {16: numba_bits.lowest16, 32: numba_bits.lowest32}[lanes]
    call = numba.njit(lambda word, size, k: lowest(word, size, k))
    rng = np.random.default_rng(1)
    for _ in range(200):
        word = rng.integers(0, 1 << 63, lanes, dtype=np.uint64)
        size, k = int(rng.integers(1, lanes + 1)), int(rng.integers(1, lanes + 1))
        order = np.argsort(word[:size])[:k]
        assert int(call(word, size, k)) == sum(1 << int(j) for j in order)


def test_r_is_uniform_and_pairs_are_independent():
    source = torch.arange(200_000)
    none = torch.zeros_like(source)
    for bits in (1, Key(3).bits, Key(4).bits):
        word = torch_labor.words(source, none, bits, None, (1.0, 0.0)).double() / 2.0**63
        assert chi2.sf(spread(word), 99) > 1e-6
        # A cell for each pair of neighbours, and for each source under two keys.
        other = torch_labor.words(source, none, bits + 1, None, (1.0, 0.0)).double() / 2.0**63
        for a, b in ((word[::2], word[1::2]), (word, other)):
            assert chi2.sf(spread((a * 10).floor() / 10 + b / 10), 99) > 1e-6


def spread(u, cells=100):
    """Chi-square statistic of numbers in [0, 1) over equal cells."""
    count = torch.bincount((u * cells).long(), minlength=cells).double()
    mean = len(u) / cells
    return float(((count - mean) ** 2 / mean).sum())


@pytest.mark.parametrize("size", [3, 20, 60])
def test_orders_of_a_few_sources_are_equally_likely_over_keys(size):
    # The place of the smallest, and who is second: size (size - 1) cells.
    csc = CSC(torch.tensor([0] * size + [0, size]).int(), torch.arange(size).int(), size + 1)
    edge, indptr = torch.arange(size).int(), torch.tensor([0, size])
    count, keys = torch.zeros(size, size), 200 * size
    for seed in range(keys):
        word = words(csc, indptr, edge, Uniforms(Key(seed).bits))
        first, second = torch.topk(word, 2, largest=False).indices.tolist()
        count[first, second] += 1
    for cells in (count.sum(0), count.sum(1)):
        mean = keys / size
        assert chi2.sf(float(((cells - mean) ** 2 / mean).sum()), size - 1) > 1e-6


def test_parallel_edges_have_numbers_of_their_own():
    csc = AWKWARD["parallel"]().csc
    assert has_parallel(csc)
    assert not has_parallel(AWKWARD["star"]().csc)
    edge = torch.arange(csc.num_edges).int()
    for law in LAWS.values():
        word = words(csc, csc.indptr.long(), edge, law)
        row, src = csc.dst.tolist(), csc.indices.tolist()
        by_source = {}
        for e in range(csc.num_edges):
            copy = sum(src[o] == src[e] and row[o] == row[e] for o in range(e))
            by_source.setdefault((src[e], copy), set()).add(int(word[e]))
        assert all(len(values) == 1 for values in by_source.values())
        assert len({next(iter(v)) for v in by_source.values()}) == len(by_source)


@pytest.mark.parametrize("law", LAWS)
def test_words_and_limits_agree_across_back_ends(law):
    csc, uniforms = crowded(), LAWS[law]
    edge = torch.arange(csc.num_edges).int()
    ours = words(csc, csc.indptr.long(), edge, uniforms)
    copies = torch_labor.copies(csc.indices, csc.dst)
    plain = torch_labor.words(csc.indices, copies, *uniforms[:2], uniforms.turn)
    assert torch.equal(ours, plain)
    assert bool((ours >= 0).all())
    for p in (1e-12, 0.1, 0.5, 0.9):
        limit = limits(torch.tensor([p], dtype=torch.float64), uniforms)
        z = [uniform(t, c, uniforms) for t, c in zip(csc.indices.tolist(), copies.tolist())]
        bound = ndtri(p) if uniforms.later else p * 2**64
        assert (ours < limit).tolist() == [value < bound for value in z]


def test_normal_scores_are_those_of_scipy_and_of_both_back_ends():
    u = Key(1).uniform(torch.arange(20_000))
    p = torch.cat([u, u**20, 1 - u**12, torch.tensor([1e-300, 2.0**-54, 0.5], dtype=u.dtype)])
    p = p[(p > 0) & (p < 1)]
    z = score(p)
    np.testing.assert_allclose(z.numpy(), ndtri(p.numpy()), rtol=4e-15, atol=1e-15)
    assert z.tolist() == [numba_normal.score(value) for value in p.tolist()]


def rows_of_weights(kind, seed=0):
    rng = np.random.default_rng(seed)
    sizes = [0, 1, 2, 3, 4, 10, 60, 500]
    indptr = torch.tensor([0, *sizes]).cumsum(0)
    weight = torch.from_numpy(rng.random(sum(sizes)) ** 3 + 1e-3)
    inverse = torch.from_numpy(10.0 ** (rng.random(sum(sizes)) * 4 - 2))
    if kind == "uniform":
        return indptr, torch.ones_like(weight), torch.ones_like(weight)
    if kind == "importance":
        return indptr, torch.ones_like(weight), inverse
    weight[rng.random(sum(sizes)) < 0.2] = 0
    return indptr, weight, torch.where(weight > 0, 1 / weight, 1.0)


@pytest.mark.parametrize("k", [1, 2, 3, 9])
@pytest.mark.parametrize("kind", ["uniform", "importance", "weights"])
def test_c_solves_its_equation(kind, k):
    indptr, weight, inverse = rows_of_weights(kind)
    y = solve(indptr, weight, inverse, k)
    torch.testing.assert_close(torch_labor.solve(indptr, weight, inverse, k), y, rtol=0, atol=0)
    for v in range(len(y)):
        row = slice(int(indptr[v]), int(indptr[v + 1]))
        w, u = weight[row][weight[row] > 0], inverse[row][weight[row] > 0]
        d = len(w)
        if d <= k:
            assert not d or float((y[v] * u).max()) == pytest.approx(1)
            continue
        right = float(w.sum() ** 2 / k - w.sum() ** 2 / d + (w**2).sum())

        def excess(log_c, w=w, u=u, right=right):
            return float((w**2 / (math.exp(log_c) / u).clamp(max=1)).sum()) / right - 1

        assert abs(excess(-math.log(float(y[v])))) < 1e-10
        root = brentq(excess, -40, 40, xtol=1e-13)
        assert float(y[v]) == pytest.approx(math.exp(-root), rel=1e-9)
        if kind == "uniform":
            assert float(y[v]) == pytest.approx(d / k, rel=1e-14)


def test_sums_do_not_depend_on_their_order():
    indptr, weight, inverse = rows_of_weights("weights")
    last = slice(int(indptr[-2]), int(indptr[-1]))
    order = torch.arange(len(weight))
    order[last] = order[last].flip(0)
    for k in (1, 5):
        y = solve(indptr, weight, inverse, k)
        assert torch.equal(solve(indptr, weight[order], inverse[order], k), y)
