"""Patterns and matrices against SciPy and dense algebra."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from graphdyn.sparse import CSC, Sparse, compress, index_dtype

SIZES = [(7, 5, 30), (5, 7, 0), (1, 1, 4), (40, 40, 200)]  # targets, sources, edges


def edge_list(size, seed=0):
    d, s, e = size
    rng = np.random.default_rng(seed)
    return rng.integers(0, s, e), rng.integers(0, d, e)


def pattern(size) -> CSC:
    src, dst = edge_list(size)
    return compress(src, dst, size[1], size[0])[0]


def matrix(size, heads=None) -> Sparse:
    csc = pattern(size)
    shape = (csc.num_edges,) if heads is None else (csc.num_edges, heads)
    return Sparse(csc, torch.rand(shape, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("size", SIZES)
def test_compress_sorts_by_target_then_source_and_tells_the_order(size):
    src, dst = edge_list(size)
    csc, order = compress(src, dst, size[1], size[0])
    expected = np.lexsort((src, dst))  # stable, like ours
    np.testing.assert_array_equal(order, expected)
    np.testing.assert_array_equal(csc.indices.numpy(), src[expected])
    np.testing.assert_array_equal(csc.dst.numpy(), dst[expected])
    counts = np.bincount(dst, minlength=size[0])
    np.testing.assert_array_equal(csc.degree.numpy(), counts)
    assert (csc.num_dst, csc.num_src, csc.num_edges) == (size[0], size[1], size[2])
    assert csc.indptr.dtype == csc.indices.dtype == torch.int32


@pytest.mark.parametrize("size", SIZES)
def test_the_transpose_exchanges_rows_and_columns(size):
    m = matrix(size)
    t = m.csc.transpose
    turned = Sparse(t.csc, m.values[t.perm.long()])
    assert torch.equal(turned.to_dense(), m.to_dense().T)
    back = t.csc.transpose
    assert back.csc is m.csc  # no third copy
    assert torch.equal(turned.values[back.perm.long()], m.values)
    assert m.csc.transpose is t  # computed once


@pytest.mark.parametrize("size", SIZES)
def test_chunks_cover_all_rows_in_order_and_do_not_depend_on_threads(size):
    csc = pattern(size)
    chunks = csc.chunks
    assert chunks[0] == 0
    assert chunks[-1] == csc.num_dst
    assert (np.diff(chunks) > 0).all()


def test_chunks_of_a_large_pattern_share_the_work():
    rng = np.random.default_rng(0)
    n, e = 20_000, 400_000
    csc, _ = compress(rng.integers(0, n, e), rng.integers(0, n, e), n, n)
    work = np.diff(csc.indptr.numpy()[csc.chunks]) + np.diff(csc.chunks)
    assert len(work) > 50
    assert work.max() < 1.2 * work.mean()


def test_one_hub_does_not_break_the_chunks():
    n, e = 1000, 50_000
    csc, _ = compress(np.arange(e) % n, np.full(e, 3), n, n)
    assert csc.chunks[0] == 0
    assert csc.chunks[-1] == n
    assert (np.diff(csc.chunks) > 0).all()


def test_chunks_reach_trailing_rows_without_edges():
    csc, _ = compress(np.zeros(9000, np.int64), np.zeros(9000, np.int64), 1, 3)
    assert csc.chunks[0] == 0
    assert csc.chunks[-1] == 3


@pytest.mark.parametrize("heads", [None, 3])
def test_rows_takes_any_rows_in_any_order(heads):
    m = matrix((40, 40, 200), heads)
    index = torch.tensor([5, 0, 39, 5])
    part = m.rows(index)
    assert part.shape == (4, 40)
    for head in [...] if heads is None else range(heads):
        whole = Sparse(m.csc, m.values[..., head] if heads else m.values).to_dense()
        got = Sparse(part.csc, part.values[..., head] if heads else part.values).to_dense()
        assert torch.equal(got, whole[index])


def test_rows_of_ones_and_of_nothing():
    ones = Sparse(pattern((7, 5, 30)))
    assert torch.equal(ones.rows(torch.tensor([2, 1])).to_dense(), ones.to_dense()[[2, 1]])
    assert ones.rows(torch.empty(0, dtype=torch.int64)).shape == (0, 5)


@pytest.mark.parametrize("size", SIZES)
def test_scipy_round_trip(size):
    src, dst = edge_list(size)
    values = np.random.default_rng(2).random(size[2]).astype(np.float32)
    reference = sp.coo_array((values, (dst, src)), shape=size[:2])
    m = Sparse.from_scipy(reference)
    np.testing.assert_allclose(m.to_dense().numpy(), reference.toarray(), rtol=1e-6)
    np.testing.assert_allclose(m.to_scipy().toarray(), reference.toarray(), rtol=1e-6)
    assert m.csc.indices.dtype == torch.int32


def test_values_of_none_mean_ones_and_parallel_edges_add_up():
    csc, _ = compress(np.array([0, 0, 1]), np.array([1, 1, 0]), 2, 2)
    expected = torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    assert torch.equal(Sparse(csc).to_dense(), expected)
    np.testing.assert_array_equal(Sparse(csc).to_scipy().toarray(), expected.numpy())


def test_indices_are_64_bit_only_where_32_do_not_suffice():
    assert index_dtype(2**31 - 1, 5) is torch.int32
    assert index_dtype(5, 2**31) is torch.int64


def test_values_can_change_dtype_on_the_way():
    m = matrix((7, 5, 30)).to("cpu", torch.float64)
    assert m.values.dtype == torch.float64
    assert m.to("meta").device.type == "meta"


@pytest.mark.parametrize("index", [torch.int32, torch.int64])
@pytest.mark.parametrize("edges", [0, 1, 300])
@pytest.mark.parametrize("form", ["_compiled_transpose", "_sorted_transpose"])
def test_both_forms_of_the_transpose_keep_the_order_of_parallel_edges(form, edges, index):
    from graphdyn import sparse

    rng = np.random.default_rng(edges)
    dst, src = np.sort(rng.integers(0, 40, edges)), rng.integers(0, 7, edges)
    indptr = np.searchsorted(dst, np.arange(41))
    csc = CSC(*(torch.from_numpy(a).to(index) for a in (indptr, src)), 9)

    got = getattr(sparse, form)(csc)

    order = np.argsort(src, kind="stable")
    expected = (np.searchsorted(src[order], np.arange(10)), dst[order], order, np.argsort(order))
    assert all(t.dtype == index for t in got)
    assert [t.tolist() for t in got] == [a.tolist() for a in expected]
