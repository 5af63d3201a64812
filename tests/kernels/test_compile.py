"""torch.compile must give the same numbers; importing the kernels must stay light."""

import subprocess
import sys

import pytest
import torch
from kernels.cases import randn, random_pattern

from graphdyn import kernels
from graphdyn.sparse import Sparse


class GCN(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.outer = torch.nn.Linear(8, 16), torch.nn.Linear(16, 3)

    def forward(self, matrix, x, bits):
        h = kernels.relu_dropout(kernels.spmm(matrix, self.inner(x)), 0.5, bits)
        return kernels.spmm(matrix, self.outer(h)).log_softmax(-1)


class GAT(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(8, 16)
        self.a_src, self.a_dst = (torch.nn.Parameter(torch.ones(2, 8)) for _ in range(2))

    def forward(self, matrix, x, bits):
        h = self.inner(x).view(-1, 2, 8)
        ends = (h * self.a_src).sum(-1), (h * self.a_dst).sum(-1)
        p = kernels.edge_softmax(matrix.csc, kernels.gat_scores(matrix.csc, *ends, 0.2))
        p = kernels.dropout(p, 0.3, bits)
        return torch.nn.functional.elu(kernels.spmm(Sparse(matrix.csc, p), h)).flatten(1)


@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("compiler", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("model", [GCN, GAT])
def test_a_compiled_model_gives_the_same_numbers(model, compiler):
    torch._dynamo.reset()
    plain = model()
    compiled = torch.compile(plain, backend=compiler)
    matrix, x = Sparse(random_pattern(50, 50, 300), randn(300).float()), randn(50, 8).float()
    for bits in (5, 6, 7):  # another key each step: the second would recompile a traced kernel
        results = []
        for run in (plain, compiled):
            plain.zero_grad()
            out = run(matrix, x, bits)
            out.square().sum().backward()
            results.append((out, plain.inner.weight.grad.clone()))
        torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


def test_importing_the_kernels_loads_neither_numba_nor_the_compiler():
    code = (
        "import sys, graphdyn.kernels as k; print(*{'numba', 'torch._dynamo'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
