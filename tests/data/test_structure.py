"""Compression of edge lists against SciPy, in one bucket and in many, in memory and on disk."""

import numpy as np
import pytest
import scipy.sparse as sp

from graphdyn.data import structure
from graphdyn.data.structure import Rules, build_csc
from graphdyn.errors import DataError

N = 97


def edge_list(seed=0, count=2000):
    """Many parallel edges and loops; targets so uneven that their ranges differ in width."""
    rng = np.random.default_rng(seed)
    src = rng.integers(0, N, count)
    dst = (N * rng.random(count) ** 4).astype(np.int64)
    dst[:50] = src[:50]
    return src, dst


def pieces(src, dst, size):
    return lambda: ((src[i : i + size], dst[i : i + size]) for i in range(0, src.size, size))


def expected(src, dst, rules):
    """Sorted (target, source) pairs after the rules, by NumPy alone."""
    pairs = np.stack([dst, src], axis=1)
    if rules.drop_loops:
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    if rules.undirected:
        pairs = np.concatenate([pairs, pairs[:, ::-1]])
    if rules.undirected or rules.coalesce:
        return np.unique(pairs, axis=0)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


ALL_RULES = [
    Rules(),
    Rules(coalesce=True),
    Rules(drop_loops=True),
    Rules(undirected=True),
    Rules(undirected=True, drop_loops=True),
]


@pytest.mark.parametrize("rules", ALL_RULES, ids=str)
@pytest.mark.parametrize("bucket", [1 << 25, 300, 7])
@pytest.mark.parametrize("on_disk", [False, True])
def test_any_number_of_buckets_gives_what_sorting_gives(
    tmp_path, monkeypatch, rules, bucket, on_disk
):
    monkeypatch.setattr(structure, "BUCKET", bucket)
    src, dst = edge_list()
    scratch = tmp_path if on_disk else None
    indptr, indices = build_csc(pieces(src, dst, 333), N, rules, scratch=scratch)
    pairs = expected(src, dst, rules)
    np.testing.assert_array_equal(np.repeat(np.arange(N), np.diff(indptr)), pairs[:, 0])
    np.testing.assert_array_equal(indices, pairs[:, 1])
    assert indptr.dtype == indices.dtype == np.int32
    assert list(tmp_path.iterdir()) == []


def test_buckets_share_the_edges_though_one_side_holds_them_all(tmp_path, monkeypatch):
    monkeypatch.setattr(structure, "BUCKET", 100)
    sizes = []
    take = structure._Bucket.take

    def counted(self):
        out = take(self)
        sizes.append(out.size)
        return out

    monkeypatch.setattr(structure._Bucket, "take", counted)
    src, dst = np.arange(1000) % N, np.full(1000, 3)  # all reverse edges leave node 3
    build_csc(pieces(src, dst, 1000), N, Rules(undirected=True))
    assert len(sizes) > 10
    assert sorted(sizes)[-3] <= 200  # but for the hub's own, which cannot be cut


def test_parallel_edges_are_kept_unless_asked_otherwise():
    src, dst = edge_list()
    indptr, indices = build_csc(pieces(src, dst, 10**9), N, Rules())
    matrix = sp.csr_array((np.ones(indices.size), indices, indptr), shape=(N, N))
    reference = sp.coo_array((np.ones(src.size), (dst, src)), shape=(N, N))
    np.testing.assert_array_equal(matrix.toarray(), reference.toarray())


@pytest.mark.parametrize("bad", [(-1, 0), (0, -1), (N, 0), (0, N)])
def test_an_edge_that_leaves_the_graph_is_named_with_its_place_in_the_list(bad):
    src, dst = edge_list(count=100)
    src[77], dst[77] = bad
    with pytest.raises(DataError, match=rf"edge 77 is {bad[0]} -> {bad[1]}, .* in 0\.\.{N - 1}"):
        build_csc(pieces(src, dst, 30), N, Rules())


@pytest.mark.parametrize("rules", ALL_RULES, ids=str)
def test_no_edges_is_a_structure_too(rules):
    nothing = np.empty(0, np.int64)
    indptr, indices = build_csc(pieces(nothing, nothing, 1), 3, rules)
    assert indptr.tolist() == [0, 0, 0, 0]
    assert indices.size == 0


def test_indices_are_64_bit_where_32_do_not_suffice(monkeypatch):
    monkeypatch.setattr(structure, "INT32_MAX", 50)
    indptr, indices = build_csc(pieces(*edge_list(), 100), N, Rules())
    assert indptr.dtype == indices.dtype == np.int64
