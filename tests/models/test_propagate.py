"""The product with W comes where it costs least, and the result does not depend on it."""

import cases
import pytest
import torch

from graphdyn.batch import Block
from graphdyn.models import propagate
from graphdyn.sparse import CSC, Sparse


def block_of(targets, sources, degree):
    """Every target receives from ``degree`` sources."""
    indptr = torch.arange(targets + 1, dtype=torch.int32) * degree
    indices = (torch.arange(targets * degree) % sources).int()
    return Block(Sparse(CSC(indptr, indices, sources), torch.ones(targets * degree)))


@pytest.mark.parametrize(
    ("sizes", "inputs", "outputs", "constant", "width"),
    [
        ((100, 100, 13), 1433, 16, True, 16),  # Cora: narrow first
        ((100, 100, 15), 200, 256, True, 200),  # arxiv: no gradient through the matrix
        ((100, 100, 15), 256, 256, False, 256),
        ((100, 100, 15), 256, 40, False, 40),
        ((100, 100, 15), 250, 200, True, 250),  # a constant input pays one pass, not two
        ((100, 100, 15), 250, 200, False, 200),
        ((10, 100, 10), 602, 256, True, 602),  # sampled: few targets, W is cheaper after
    ],
)
def test_the_cheaper_order_is_taken(monkeypatch, sizes, inputs, outputs, constant, width):
    seen = []
    spmm = propagate.spmm
    monkeypatch.setattr(propagate, "spmm", lambda a, x: (seen.append(x.shape[1]), spmm(a, x))[1])
    block = block_of(*sizes)
    h = cases.seeded(sizes[1], inputs, dtype=torch.float32).requires_grad_(not constant)
    weight = cases.seeded(outputs, inputs, seed=1, dtype=torch.float32).requires_grad_()
    out = propagate.aggregate(block, h, weight, torch.ones(outputs))
    assert seen == [width]
    expected = block.adjacency.to_dense() @ h @ weight.t() + 1
    torch.testing.assert_close(out, expected, rtol=1e-3, atol=1e-2)


def test_prefix_of_dense_and_sparse_features_agree_and_a_full_prefix_is_the_thing_itself():
    sparse = cases.tiny(sparse=True).x
    thick = sparse.to_dense(torch.float64)
    assert torch.equal(propagate.prefix(sparse, 5).to_dense(torch.float64), thick[:5])
    assert torch.equal(propagate.prefix(thick, 5), thick[:5])
    assert propagate.prefix(sparse, 12) is sparse
    assert propagate.prefix(thick, 12) is thick
