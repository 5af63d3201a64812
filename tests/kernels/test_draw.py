"""Drawing edges: the law of every draw, by enumeration and by chi-square, and its agreement across back-ends."""

import math
from collections import Counter
from itertools import combinations, product

import numpy as np
import pytest
import torch
from samplers.graphs import AWKWARD, hub
from scipy.stats import chi2

from graphdyn.kernels import torch_draw
from graphdyn.kernels.draw import (
    Draw,
    Workspace,
    draw_uniform,
    find_loops,
    relabel,
    take_rows,
    take_source,
    weigh,
    weigh_rows,
)
from graphdyn.keys import Key
from graphdyn.sparse import CSC, Sparse

FANOUTS = (-1, 1, 2, 3, 4, 100)
MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def mixed(z):
    """SplitMix64's finaliser on Python integers."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def floyd(choices, d, k):
    """Bentley & Floyd: choices[j] in 0..d-k+j; a second hit takes the newest position."""
    chosen = []
    for j, t in enumerate(choices):
        chosen.append(d - k + j if t in chosen else t)
    return chosen


def row(d):
    """One target with d sources 0..d-1, none of them itself (target d)."""
    indptr = torch.zeros(d + 2, dtype=torch.int32)
    indptr[-1] = d
    return CSC(indptr, torch.arange(d, dtype=torch.int32), d + 1), torch.tensor([d])


def rows(count, d):
    """``count`` targets, each with d sources of its own."""
    indptr = torch.arange(count + 1, dtype=torch.int32) * d
    return CSC(indptr, torch.arange(count * d, dtype=torch.int32), count * d), torch.arange(count)


def uniform(counts, probability=None):
    """Whether counts pass a chi-square test that a true law fails once in a million."""
    counts = np.asarray(counts, dtype=float)
    expected = counts.sum() * (
        np.full(counts.size, 1 / counts.size) if probability is None else probability
    )
    return ((counts - expected) ** 2 / expected).sum() < chi2.isf(1e-6, counts.size - 1)


@pytest.mark.parametrize("d", [2, 3, 5, 7])
def test_floyd_gives_every_subset_equally_often(d):
    for k in range(1, d):
        tree = product(*(range(d - k + j + 1) for j in range(k)))
        sets = Counter(frozenset(floyd(choices, d, k)) for choices in tree)
        assert set(sets) == {frozenset(s) for s in combinations(range(d), k)}
        assert len(set(sets.values())) == 1


@pytest.mark.parametrize(("d", "k"), [(5, 1), (9, 4), (40_000, 7), (1000, 999)])
def test_the_kernel_is_floyd_on_unbiased_integers(d, k):
    csc, dst = row(d)
    for seed in range(5):
        bits = Key(seed).bits
        word = mixed((mixed((d + GOLDEN) & MASK) ^ bits) + GOLDEN & MASK)
        choices = []
        for j in range(k):
            bound, z = d - k + j + 1, mixed((word + GOLDEN * (j + 1)) & MASK)
            while ((z >> 32) * bound & 0xFFFFFFFF) < (1 << 32) % bound:
                z = mixed((z + GOLDEN) & MASK)
            choices.append((z >> 32) * bound >> 32)
        draw = draw_uniform(csc, None, dst, k, bits)
        assert draw.edge.tolist() == floyd(choices, d, k)


def test_every_subset_is_drawn_equally_often():
    d, k = 6, 3
    csc, dst = rows(20_000, d)
    for key in (Key(1), Key(2).fold("layer", 1)):
        drawn = np.sort(
            draw_uniform(csc, None, dst, k, key.bits).edge.view(-1, k).numpy() % d, axis=1
        )
        counts = Counter(map(tuple, drawn.tolist()))
        assert len(counts) == math.comb(d, k)
        assert uniform(list(counts.values()))


def test_keys_give_every_subset_equally_often_to_one_target():
    csc, dst = row(5)
    counts = Counter(
        frozenset(draw_uniform(csc, None, dst, 2, Key(3).at(step=r).bits).edge.tolist())
        for r in range(5000)
    )
    assert len(counts) == 10
    assert uniform(list(counts.values()))


def test_with_replacement_every_tuple_is_drawn_equally_often():
    d, k = 3, 3
    csc, dst = rows(30_000, d)
    draw = draw_uniform(csc, None, dst, k, Key(4).bits, replace=True)
    counts = Counter(map(tuple, (draw.edge.view(-1, k) % d).tolist()))
    assert len(counts) == d**k
    assert uniform(list(counts.values()))
    assert draw.scale.unique().tolist() == [1.0]


def test_with_replacement_rows_below_the_fan_out_are_drawn_too():
    csc, dst = row(2)
    draw = draw_uniform(csc, None, dst, 5, 1, replace=True)
    assert draw.edge.numel() == 5
    torch.testing.assert_close(draw.scale, torch.full((5,), 2 / 5))


def bins(d):
    """The first positions singly, where a biased scheme is worst, then even blocks."""
    return np.concatenate([np.arange(8), np.linspace(8, d, 65).astype(int)])


def even(position, d):
    edges = bins(d)
    counts = np.histogram(position, bins=edges)[0]
    return uniform(counts, np.diff(edges) / d)


@pytest.mark.parametrize("d", [40_000, 65_535, 100_000])
def test_positions_in_long_rows_are_uniform(d):
    csc, dst = row(d)
    draws = 8_000_000 if d == 65_535 else 400_000
    assert even(draw_uniform(csc, None, dst, draws, Key(5).bits, replace=True).edge.numpy(), d)
    without = [draw_uniform(csc, None, dst, 100, Key(6).at(step=r).bits).edge for r in range(1000)]
    assert even(torch.cat(without).numpy(), d)


@pytest.mark.parametrize("d", [40_000, 65_535, 100_000])
def test_sixteen_bits_modulo_the_degree_would_be_found_out(d):
    draws = 8_000_000 if d == 65_535 else 400_000
    words = np.random.default_rng(7).integers(0, 1 << 16, draws)
    assert not even(words % d, d)


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("name", AWKWARD)
def test_numba_and_torch_draw_the_same_edges(name, replace):
    csc = AWKWARD[name]().csc
    loops, dst = find_loops(csc), torch.arange(csc.num_dst).flip(0)
    for k in FANOUTS:
        for key in (Key(8), Key(9).fold("layer", 2)):
            ours = draw_uniform(csc, loops, dst, k, key.bits, replace=replace)
            indptr, edge, scale = torch_draw.draw_uniform(csc, loops, dst, k, key.bits, replace)
            assert torch.equal(ours.indptr, indptr)
            assert torch.equal(ours.edge.long(), edge)
            assert torch.equal(ours.scale, scale)
            src = take_source(csc, ours.edge)
            local, nodes = relabel(dst, src, Workspace(csc.num_dst))
            other, ids = torch_draw.relabel(dst, src, csc.num_dst)
            assert torch.equal(local.long(), other)
            assert torch.equal(nodes, ids)


def test_numba_and_torch_agree_on_a_hub_of_a_hundred_thousand():
    csc = hub(100_000).csc
    dst = torch.tensor([0, 5, 100_000])
    for k in (1, 10, 50):
        ours = draw_uniform(csc, None, dst, k, Key(1).bits)
        _, edge, scale = torch_draw.draw_uniform(csc, None, dst, k, Key(1).bits, False)
        assert torch.equal(ours.edge.long(), edge)
        assert torch.equal(ours.scale, scale)
        assert len(set(ours.edge.tolist())) == ours.edge.numel()


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("name", AWKWARD)
def test_loops_are_kept_beside_the_draws(name, replace):
    csc = AWKWARD[name]().csc
    dst = torch.arange(csc.num_dst)
    indptr, indices = csc.indptr.tolist(), csc.indices.tolist()
    for k in FANOUTS:
        draw = draw_uniform(csc, find_loops(csc), dst, k, 3, replace=replace)
        for v in range(csc.num_dst):
            part = slice(int(draw.indptr[v]), int(draw.indptr[v + 1]))
            edges, scale = draw.edge[part].tolist(), draw.scale[part]
            every = range(indptr[v], indptr[v + 1])
            own = [e for e in every if indices[e] == v]
            rest = [e for e in every if indices[e] != v]
            assert edges[: len(own)] == own
            assert set(edges[len(own) :]) <= set(rest)
            assert bool((scale[: len(own)] == 1).all())
            certain = k < 0 or (len(rest) <= k and not replace)
            assert len(edges) - len(own) == (len(rest) if certain or not rest else k)
            factor = 1.0 if certain else len(rest) / k
            torch.testing.assert_close(
                scale[len(own) :], torch.full_like(scale[len(own) :], factor)
            )
            if not replace:
                assert len(set(edges)) == len(edges)


def test_find_loops_says_where_they_stand():
    packed = find_loops(AWKWARD["parallel"]().csc)
    csc = AWKWARD["parallel"]().csc
    for v in range(csc.num_dst):
        sources = csc.indices[csc.indptr[v] : csc.indptr[v + 1]].tolist()
        count = sources.count(v)
        assert int(packed[v]) & 0xFFFFFFFF == count
        assert int(packed[v]) >> 32 == (sources.index(v) if count else 0)
    assert find_loops(AWKWARD["star"]().csc) is None


def test_a_draw_depends_on_the_target_alone_and_not_on_its_company():
    csc = hub(1000).csc
    alone = draw_uniform(csc, None, torch.tensor([0]), 5, 1)
    among = draw_uniform(csc, None, torch.tensor([7, 0, 3]), 5, 1)
    part = slice(int(among.indptr[1]), int(among.indptr[2]))
    assert torch.equal(alone.edge, among.edge[part])


def test_nobody_asks_and_nothing_is_drawn():
    csc = AWKWARD["loops"]().csc
    none = torch.zeros(0, dtype=torch.int64)
    for draw in (
        draw_uniform(csc, find_loops(csc), none, 3, 1),
        draw_uniform(csc, find_loops(csc), none, 3, 1, replace=True),
    ):
        assert draw.indptr.tolist() == [0]
        assert draw.edge.numel() == draw.scale.numel() == 0
    local, nodes = relabel(none, take_source(csc, none.int()), Workspace(7))
    assert local.numel() == nodes.numel() == 0


def test_local_ids_put_targets_first_then_sources_as_they_come():
    workspace = Workspace(10)
    for _ in range(2):  # a used workspace remembers nothing
        local, nodes = relabel(torch.tensor([7, 2]), torch.tensor([2, 9, 9, 7, 4]), workspace)
        assert nodes.tolist() == [7, 2, 9, 4]
        assert local.tolist() == [1, 2, 2, 0, 3]


def test_stamps_that_run_out_start_over():
    workspace = Workspace(4)
    relabel(torch.tensor([3]), torch.tensor([1]), workspace)
    workspace.stamp = (1 << 31) - 1
    assert workspace.next_stamp() == 1
    assert int(workspace.table.abs().sum()) == 0


def test_weights_are_values_times_scale():
    values, edge = torch.tensor([2.0, 3.0, 5.0]), torch.tensor([2, 0], dtype=torch.int32)
    scale = torch.tensor([0.5, 4.0])
    assert weigh(values, edge, scale).tolist() == [2.5, 8.0]
    assert weigh(values, edge, None).tolist() == [5.0, 2.0]
    assert weigh(None, edge, scale) is scale
    assert weigh(None, edge, None) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_rows_are_gathered(dtype):
    x = torch.arange(12).view(4, 3).to(dtype)
    ids = torch.tensor([3, 0, 3])
    assert torch.equal(take_rows(x, ids), x[ids])
    sparse = Sparse.from_scipy(Sparse(CSC(*_dense_pattern()), x.float().flatten()).to_scipy())
    assert torch.equal(take_rows(sparse, ids).to_dense(), x.float()[ids])


def _dense_pattern():
    return torch.arange(5) * 3, torch.arange(3).repeat(4), 3


def test_bounds_near_the_word_size_are_rejected_into_uniformity():
    from graphdyn.kernels import numba_draw

    bound = 3 << 30  # a third of all products must be thrown away
    words = Key(1).hash(torch.arange(3000))
    ours = torch_draw.bounded(words, 2, torch.full_like(words, bound))
    compiled = [numba_draw.bounded(np.uint64(w & MASK), 2, bound) for w in words.tolist()]
    assert ours.tolist() == compiled
    assert uniform(torch.bincount(ours % 3, minlength=3).numpy())


@pytest.mark.parametrize("scaled", [True, False])
def test_rows_of_one_value_are_weighed_at_their_targets(scaled, monkeypatch):
    values = torch.tensor([0.5, 0.25, 3.0])
    indptr, dst = torch.tensor([0, 2, 2, 5]), torch.tensor([2, 0, 1])
    scale = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0]) if scaled else None
    drawn = Draw(indptr, torch.arange(5), scale)
    expected = torch.tensor([3.0, 3.0, 0.25, 0.25, 0.25])
    expected = expected if scale is None else expected * scale
    assert torch.equal(weigh_rows(values, dst, drawn), expected)
    monkeypatch.setattr("graphdyn.kernels.draw.compiled", lambda device: False)
    assert torch.equal(weigh_rows(values, dst, drawn), expected)
