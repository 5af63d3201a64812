"""Costs: counted by hand."""

import torch

from graphdyn.costs import bytes_gathered
from graphdyn.sparse import CSC, Sparse


def test_bytes_of_dense_rows_are_rows_by_columns_by_width():
    assert bytes_gathered(torch.zeros(7, 5)) == 7 * 5 * 4
    assert bytes_gathered(torch.zeros(7, 5, dtype=torch.bfloat16)) == 7 * 5 * 2


def test_of_sparse_rows_values_and_indices_count():
    pattern = CSC(torch.tensor([0, 2, 3]), torch.tensor([0, 4, 1], dtype=torch.int32), 5)
    assert bytes_gathered(Sparse(pattern)) == 3 * 4
    assert bytes_gathered(Sparse(pattern, torch.ones(3))) == 3 * 4 + 3 * 4
