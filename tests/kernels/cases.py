"""Awkward patterns, and every kernel written once more as dense torch algebra."""

import numpy as np
import torch

from graphdyn.sparse import CSC, compress

EDGES = {
    # name: (sources, targets, S, D)
    "small": ([0, 1, 2, 1, 4, 3], [0, 0, 1, 3, 3, 4], 5, 5),
    "multi-edges and loops": ([0, 0, 0, 1, 2, 2, 2, 2], [0, 0, 1, 1, 2, 2, 2, 0], 3, 3),
    "empty rows, isolated sources": ([6, 6, 1, 6, 6, 6, 1], [1, 4, 4, 4, 4, 4, 4], 8, 7),
    "no edges": ([], [], 4, 3),
    "bipartite": ([5, 4, 3, 2, 1, 0, 5, 5], [0, 1, 0, 1, 0, 1, 1, 0], 6, 2),
    "single row": ([0, 3, 1, 2, 0, 4, 2], [0, 0, 0, 0, 0, 0, 0], 5, 1),
    "no targets": ([], [], 3, 0),
}


def pattern(name, index=torch.int32) -> CSC:
    src, dst, num_src, num_dst = EDGES[name]
    csc, _ = compress(
        np.array(src, dtype=np.int64), np.array(dst, dtype=np.int64), num_src, num_dst
    )
    return CSC(csc.indptr.to(index), csc.indices.to(index), num_src)


def random_pattern(num_dst, num_src, edges, hub=0, seed=0) -> CSC:
    rng = np.random.default_rng(seed)
    src = rng.integers(0, num_src, edges + hub)
    dst = np.concatenate([rng.integers(0, num_dst, edges), np.full(hub, num_dst // 2, np.int64)])
    return compress(src, dst, num_src, num_dst)[0]


def randn(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def incidence(csc, side) -> torch.Tensor:
    """(D or S, E) 0/1 matrix that says which edge touches which node."""
    ends = csc.indices if side == "src" else csc.dst
    size = csc.num_src if side == "src" else csc.num_dst
    return (ends.long()[None] == torch.arange(size)[:, None]).double()


def dense_spmm(csc, values, x):
    to, of = incidence(csc, "dst"), incidence(csc, "src")
    if values is None:
        values = torch.ones(csc.num_edges, dtype=torch.float64)
    if x.dim() == 2:
        return to @ torch.diag(values) @ of.T @ x
    return torch.einsum("de,eh,se,shf->dhf", to, values, of, x)


def dense_sddmm(csc, dst, src):
    full = torch.einsum("d...f,s...f->ds...", dst, src)
    return full[csc.dst.long(), csc.indices.long()]


def dense_softmax(csc, logits):
    to = incidence(csc, "dst")
    if csc.num_edges == 0:
        return logits * 0
    masked = torch.where(to.bool()[:, :, None], logits[None], -torch.inf)
    owner = csc.dst.long()
    return masked[owner].softmax(1)[torch.arange(csc.num_edges), torch.arange(csc.num_edges)]


def dense_max(csc, x):
    rows = []
    for v in range(csc.num_dst):
        span = csc.indices[csc.indptr[v] : csc.indptr[v + 1]].long()
        zero = (x.sum() * 0).expand(x.shape[1])
        rows.append(x[span].max(0).values if span.numel() else zero)
    return torch.stack(rows) if rows else x[:0] * 1


def dense_gat(csc, a_src, a_dst, slope):
    z = a_src[csc.indices.long()] + a_dst[csc.dst.long()]
    return torch.nn.functional.leaky_relu(z, slope)


def dense_gatv2(csc, x_src, x_dst, att, slope):
    return (dense_gat(csc, x_src, x_dst, slope) * att).sum(-1)
