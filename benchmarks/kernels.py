"""Cost of the kernels on the ogbn-arxiv graph, beside what torch and PyG offer for the same job.

    GRAPHDYN_DATA=... python benchmarks/kernels.py [--rounds 5] [--threads 2]

Ratios are of medians in one run, variants taken in turns. Backward passes are timed with the
forward pass that they need. JSON goes to benchmarks/results/kernels.json.
"""

import argparse

import torch
import torch_geometric.nn as pyg
from common import interleaved, median, save
from torch import Tensor
from torch_geometric.utils import softmax

from graphdyn import kernels
from graphdyn.data import load
from graphdyn.graph import Propagation
from graphdyn.keys import Key
from graphdyn.sparse import Sparse

HEADS, WIDTH, HIDDEN = 8, 8, 256


def gradient(function, *inputs: Tensor):
    """Forward and backward of a function with a fixed cotangent."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    cotangent = torch.ones_like(function(*leaves))

    def work():
        torch.autograd.grad(function(*leaves), leaves, cotangent)

    return work


def products(matrix: Sparse, index: Tensor, x: Tensor) -> dict:
    """A @ x and its gradient, against torch CSR and gather + index_add."""
    csc = matrix.csc
    csr = torch.sparse_csr_tensor(csc.indptr, csc.indices, matrix.values, matrix.shape)

    def scatter(h):
        messages = h[index[0]] * matrix.values[:, None]
        return torch.zeros_like(h).index_add_(0, index[1], messages)

    def ours(h):
        return kernels.spmm(matrix, h)

    return {
        f"spmm {x.shape[1]}": {
            "graphdyn": lambda: ours(x),
            "torch CSR": lambda: csr @ x,
            "gather + index_add": lambda: scatter(x),
        },
        f"spmm {x.shape[1]} + gradient": {
            "graphdyn": gradient(ours, x),
            "torch CSR": gradient(lambda h: csr @ h, x),
            "gather + index_add": gradient(scatter, x),
        },
    }


def attention(csc, index: Tensor, x: Tensor) -> dict:
    """Softmax along the edges, and a whole GAT layer with all gradients."""
    logits = torch.randn(csc.num_edges, HEADS)
    layer = pyg.GATConv(x.shape[1], WIDTH, HEADS, add_self_loops=False, bias=False)
    weight = layer.lin.weight

    def ours(h, w, a_src, a_dst):
        h = (h @ w.T).view(-1, HEADS, WIDTH)
        ends = (h * a_src).sum(-1), (h * a_dst).sum(-1)
        p = kernels.edge_softmax(csc, kernels.gat_scores(csc, *ends, 0.2))
        return kernels.spmm(Sparse(csc, p), h).flatten(1)

    def theirs(h, w, a_src, a_dst):
        parts = {"lin.weight": w, "att_src": a_src, "att_dst": a_dst}
        return torch.func.functional_call(layer, parts, (h, index))

    parameters = (weight, layer.att_src, layer.att_dst)
    torch.testing.assert_close(ours(x, *parameters), theirs(x, *parameters), rtol=1e-3, atol=1e-4)
    return {
        f"edge softmax, {HEADS} heads": {
            "graphdyn": lambda: kernels.edge_softmax(csc, logits),
            "PyG softmax": lambda: softmax(logits, index[1], num_nodes=csc.num_dst),
        },
        f"edge softmax, {HEADS} heads + gradient": {
            "graphdyn": gradient(lambda e: kernels.edge_softmax(csc, e), logits),
            "PyG softmax": gradient(lambda e: softmax(e, index[1], num_nodes=csc.num_dst), logits),
        },
        f"GAT layer {HEADS} x {WIDTH} + gradient": {
            "graphdyn": gradient(ours, x, *parameters),
            "PyG GATConv": gradient(theirs, x, *parameters),
        },
    }


def dropouts(x: Tensor) -> dict:
    """Keyed dropout, alone and after a ReLU, with gradients."""
    bits = Key(0).bits
    drop = torch.nn.functional.dropout
    return {
        "dropout + gradient": {
            "graphdyn": gradient(lambda h: kernels.dropout(h, 0.5, bits), x),
            "torch": gradient(lambda h: drop(h, 0.5), x),
        },
        "ReLU, dropout + gradient": {
            "graphdyn": gradient(lambda h: kernels.relu_dropout(h, 0.5, bits), x),
            "torch": gradient(lambda h: drop(h.relu(), 0.5), x),
        },
    }


def second_order(matrix: Sparse, x: Tensor) -> float:
    """Seconds of a Hessian-vector product through spmm, dropout and softmax; must be finite."""
    x = x.clone().requires_grad_()

    def work():
        h = kernels.spmm(matrix, kernels.relu_dropout(x, 0.5, 1))
        p = kernels.edge_softmax(matrix.csc, kernels.gather_src(matrix.csc, h))
        loss = h.square().sum() + p.square().sum()
        (first,) = torch.autograd.grad(loss, x, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), x)
        assert second.isfinite().all()

    return median(interleaved({"hvp": work}, rounds=2)["hvp"])


def report(cases: dict, rounds: int) -> dict:
    """Time each case, print a line for each competitor, and return seconds."""
    results = {}
    for case, variants in cases.items():
        seconds = interleaved(variants, rounds)
        ours = median(seconds["graphdyn"])
        for name, values in seconds.items():
            if name != "graphdyn":
                theirs = median(values)
                line = f"{case:34s} {ours * 1e3:8.1f} ms   {name:20s} {theirs * 1e3:8.1f} ms"
                print(f"{line}   {theirs / ours:5.1f} x")
        results[case] = {name: {"seconds": values} for name, values in seconds.items()}
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    matrix = load("ogbn-arxiv-tape").adjacency(Propagation())
    csc = matrix.csc
    index = torch.stack([csc.indices.long(), csc.dst.long()])
    x = torch.randn(csc.num_src, HIDDEN)
    print(f"{csc}, {arguments.threads} threads")
    results = {}
    for cases in (
        products(matrix, index, x),
        attention(csc, index, x[:, :128].contiguous()),
        dropouts(x),
    ):
        results |= report(cases, arguments.rounds)
    results["Hessian-vector product"] = {
        "graphdyn": {"seconds": second_order(matrix, x[:, :8].contiguous())}
    }
    print(f"written to {save('kernels', results)}")


if __name__ == "__main__":
    main()
