"""Batch norm, ReLU and dropout in one kernel against the three written out in torch."""

import pytest
import torch
from torch.nn import functional as F

from graphdyn.kernels import relu_dropout
from graphdyn.kernels.normalise import batch_norm, fusible
from graphdyn.keys import Key

CASES = [
    (n, width, weighted, p, named)
    for n, width in ((2, 1), (7, 5), (200, 8))
    for weighted in (False, True)
    for p in (0.0, 0.5)
    for named in (False, True)
]


def inputs(n, width, weighted, named, dtype=torch.float64):
    rng = Key(3).fold("normalise", n).generator()
    x = torch.randn(n, width, generator=rng, dtype=dtype) * 2 + 5
    gamma, beta = torch.randn(2, width, generator=rng, dtype=dtype)
    weight = torch.rand(n, generator=rng, dtype=dtype) + 0.1 if weighted else None
    weight = None if weight is None else weight / weight.sum()
    ids = torch.randperm(10 * n, generator=rng)[:n] if named else None
    return [t.requires_grad_() for t in (x, gamma, beta)], weight, ids


def written_out(x, gamma, beta, weight, p, ids, eps=1e-5):
    weight = x.new_full((x.shape[0],), 1 / x.shape[0]) if weight is None else weight
    mean = weight @ x
    var = weight @ (x - mean).square()
    return relu_dropout(gamma * (x - mean) / (var + eps).sqrt() + beta, p, 9, ids), mean, var


@pytest.mark.parametrize(("n", "width", "weighted", "p", "named"), CASES)
def test_value_statistics_and_gradients(n, width, weighted, p, named):
    leaves, weight, ids = inputs(n, width, weighted, named)
    ours = batch_norm(*leaves, weight=weight, relu=True, p=p, bits=9, ids=ids)
    theirs = written_out(*leaves, weight, p, ids)
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(
            a, b.detach() if not a.requires_grad else b, atol=1e-12, rtol=1e-12
        )
    grad = torch.randn(n, width, generator=Key(4).generator(), dtype=torch.float64)
    for a, b in zip(
        torch.autograd.grad(ours.out, leaves, grad), torch.autograd.grad(theirs[0], leaves, grad)
    ):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("weighted", [False, True])
def test_second_derivatives(weighted):
    leaves, weight, ids = inputs(6, 3, weighted, True)

    def out(*leaves):
        return batch_norm(*leaves, weight=weight, relu=True, p=0.5, bits=9, ids=ids).out

    assert torch.autograd.gradcheck(out, leaves)
    assert torch.autograd.gradgradcheck(out, leaves)


def test_statistics_and_result_agree_with_torch_in_single_precision():
    (x, gamma, beta), _, _ = inputs(4000, 16, False, False, torch.float32)
    ours = batch_norm(x, gamma, beta, relu=True)
    var, mean = torch.var_mean(x.double(), 0, correction=0)
    torch.testing.assert_close(ours.mean.double(), mean, atol=0, rtol=1e-6)
    torch.testing.assert_close(ours.var.double(), var, atol=0, rtol=1e-5)
    theirs = torch.relu(F.batch_norm(x, None, None, gamma, beta, training=True))
    torch.testing.assert_close(ours.out, theirs, atol=1e-5, rtol=1e-5)


def test_a_large_mean_does_not_cancel_the_variance():
    (x, gamma, beta), _, _ = inputs(500, 4, False, False, torch.float32)
    far = (x.detach() + 1e5).requires_grad_()
    var = far.detach().double().var(0, correction=0)
    torch.testing.assert_close(batch_norm(far, gamma, beta).var.double(), var, atol=0, rtol=1e-4)


def test_threads_do_not_change_a_bit():
    (x, gamma, beta), _, ids = inputs(9000, 64, False, True, torch.float32)
    grad = torch.randn(x.shape, generator=Key(5).generator())
    seen = []
    for threads in (1, 2, 4):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            out = batch_norm(x, gamma, beta, relu=True, p=0.3, bits=1, ids=ids).out
            seen.append((out, *torch.autograd.grad(out, (x, gamma, beta), grad)))
        finally:
            torch.set_num_threads(before)
    for other in seen[1:]:
        assert all(torch.equal(a, b) for a, b in zip(seen[0], other))


@pytest.mark.parametrize("weighted", [False, True])
def test_without_relu_nothing_follows(weighted):
    leaves, weight, _ = inputs(9, 4, weighted, False)
    x, gamma, beta = leaves
    p = x.new_full((9,), 1 / 9) if weight is None else weight
    mean = p @ x
    plain = gamma * (x - mean) / (p @ (x - mean).square() + 1e-5).sqrt() + beta
    out = batch_norm(*leaves, weight=weight).out
    torch.testing.assert_close(out, plain, atol=1e-12, rtol=1e-12)
    grad = torch.randn(9, 4, generator=Key(6).generator(), dtype=torch.float64)
    for a, b in zip(
        torch.autograd.grad(out, leaves, grad), torch.autograd.grad(plain, leaves, grad)
    ):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-10)
    assert torch.autograd.gradgradcheck(lambda *t: batch_norm(*t, weight=weight).out, leaves)


def test_where_it_does_not_run():
    assert not fusible(torch.zeros(3, 2, dtype=torch.bfloat16))
    assert not fusible(torch.zeros(0, 2))
