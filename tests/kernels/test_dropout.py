"""Keyed dropout: the same bits everywhere, the right law, and nothing stored."""

import numpy as np
import pytest
import torch
from kernels.cases import randn, random_pattern

from graphdyn import kernels
from graphdyn.kernels import numba_ops, reference, threads, torch_ops
from graphdyn.keys import GOLDEN, MASK, Key, hash_numpy, mix
from graphdyn.sparse import Sparse

BITS = Key(11).fold("dropout", 2).bits


def plain_mask(ids, columns, p, bits):
    """The definition, with Python's own integers."""
    keep = np.zeros((len(ids), columns), dtype=bool)
    for r, number in enumerate(ids):
        row = int(hash_numpy(np.array([number]), bits)[0])
        for c in range(columns):
            word = mix((row + GOLDEN * (c // 2 + 1)) & MASK)
            keep[r, c] = (word >> (32 * (c % 2))) & 0xFFFFFFFF >= round(p * 2**32)
    return keep


@pytest.mark.parametrize("columns", [1, 2, 7])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.93])
@pytest.mark.parametrize("ids", [None, [5, 0, 2**40, 5, 17]])
def test_the_mask_is_its_definition_in_every_back_end(columns, p, ids):
    keep = plain_mask(range(5) if ids is None else ids, columns, p, BITS)
    tensor = None if ids is None else torch.tensor(ids)
    array = None if ids is None else np.array(ids)
    threshold, x = round(p * 2**32), torch.ones(5, columns, dtype=torch.float64)
    expected = torch.from_numpy(keep).double() / (1 - threshold / 2**32)
    by_hand = reference.dropout(x.numpy(), threshold, BITS, array, False)
    torch.testing.assert_close(torch.from_numpy(by_hand), expected, rtol=1e-15, atol=0)
    for back_end in (numba_ops, torch_ops):
        got = back_end.dropout(x, threshold, BITS, tensor, False)
        torch.testing.assert_close(got, expected, rtol=1e-15, atol=0)
    torch.testing.assert_close(kernels.dropout(x, p, BITS, tensor), expected, rtol=1e-15, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_back_ends_agree_to_the_bit(dtype):
    x = randn(40, 33, dtype=dtype)
    for relu in (False, True):
        fast = numba_ops.dropout(x, 1 << 31, BITS, None, relu)
        plain = torch.from_numpy(reference.dropout(x.numpy(), 1 << 31, BITS, None, relu))
        assert torch.equal(fast, torch_ops.dropout(x, 1 << 31, BITS, None, relu))
        assert torch.equal(fast, plain)


def test_the_mask_does_not_depend_on_threads(monkeypatch):
    x = randn(5000, 3).float()
    alone = kernels.dropout(x, 0.3, BITS)
    monkeypatch.setattr(threads, "SERIAL", 0)
    torch.set_num_threads(2)
    shared = kernels.dropout(x, 0.3, BITS)
    torch.set_num_threads(1)
    assert torch.equal(alone, shared)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_mean_and_variance_are_those_of_inverted_dropout(p):
    n = 400 * 501
    out = kernels.dropout(torch.ones(400, 501, dtype=torch.float64), p, BITS)
    variance = p / (1 - p)
    assert abs(out.mean() - 1) < 4.5 * (variance / n) ** 0.5
    kept = (out > 0).double()
    spread = (out - 1).square()
    assert abs(spread.mean() - variance) < 4.5 * (spread.var() / n).sqrt() + 1e-9
    for neighbour in (kept[:, 1:] * kept[:, :-1], kept[1:] * kept[:-1]):
        q = (1 - p) ** 2
        # Neighbouring products overlap; three times the variance of independent ones bounds theirs.
        assert abs(neighbour.mean() - q) < 4.5 * (3 * q * (1 - q) / neighbour.numel()) ** 0.5


def test_a_row_keeps_its_mask_wherever_it_stands():
    ids = torch.tensor([9, 4, 7, 4])
    full = kernels.dropout(torch.ones(10, 6), 0.5, BITS)
    assert torch.equal(kernels.dropout(torch.ones(4, 6), 0.5, BITS, ids), full[ids])


def test_trailing_axes_are_columns():
    flat = kernels.dropout(torch.ones(10, 6), 0.5, BITS)
    assert torch.equal(kernels.dropout(torch.ones(10, 2, 3), 0.5, BITS), flat.view(10, 2, 3))
    assert torch.equal(kernels.dropout(torch.ones(10), 0.5, BITS), flat[:, 0])


def test_relu_dropout_is_dropout_of_relu_with_its_gradient():
    x = randn(30, 8).requires_grad_()
    y = x.detach().clone().requires_grad_()
    fused = kernels.relu_dropout(x, 0.4, BITS)
    steps = kernels.dropout(y.relu(), 0.4, BITS)
    assert torch.equal(fused, steps)
    grad = randn(30, 8, seed=1)
    fused.backward(grad)
    steps.backward(grad)
    assert torch.equal(x.grad, y.grad)


@pytest.mark.parametrize("back_end", [numba_ops, torch_ops])
def test_sparse_dropout_is_dense_dropout(back_end, monkeypatch):
    monkeypatch.setattr("graphdyn.kernels.backend._cpu", lambda: back_end)
    csc = random_pattern(20, 30, 15)
    csc = Sparse(csc).to_scipy().tocsr()
    csc.sum_duplicates()
    matrix, ids = Sparse.from_scipy(csc), torch.arange(20) * 3
    dropped = kernels.dropout_values(matrix, 0.5, BITS, ids).to_dense()
    assert torch.equal(dropped, kernels.dropout(matrix.to_dense(), 0.5, BITS, ids))
    ones = kernels.dropout_values(Sparse(matrix.csc), 0.5, BITS).values
    assert torch.equal(ones, kernels.dropout_values(matrix, 0.5, BITS).values / matrix.values)


def test_no_dropout_is_the_identity():
    x = randn(3, 2)
    matrix = Sparse(random_pattern(4, 4, 5))
    assert kernels.dropout(x, 0.0, BITS) is x
    assert kernels.dropout_values(matrix, 0.0, BITS) is matrix
    assert torch.equal(kernels.relu_dropout(x, 0.0, BITS), x.relu())


def test_dropout_stores_no_mask():
    out = kernels.dropout(randn(3, 2).requires_grad_(), 0.5, BITS)
    saved = out.grad_fn.next_functions[0][0].saved_tensors
    assert all(t is None for t in saved)


@pytest.mark.parametrize("shape", [(0,), (0, 4), (3, 0)])
def test_empty_tensors_pass(shape):
    assert kernels.dropout(torch.ones(shape), 0.5, BITS).shape == shape
