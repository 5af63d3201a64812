"""Attention along the edges: scores and their softmax."""

from __future__ import annotations

from torch import Tensor

from graphdyn.kernels import autograd_attention
from graphdyn.kernels.door import eager, expect, same_type
from graphdyn.sparse import CSC


@eager
def edge_softmax(csc: CSC, logits: Tensor) -> Tensor:
    """Softmax over the edges into each target, one a head; the maximum is subtracted first.

    Args:
        csc: The pattern.
        logits: (E, H).

    Returns:
        (E, H); sums to 1 over the edges of every target that has any.

    Raises:
        InputError: If the shapes do not fit.
    """
    dtype, (logits,) = same_type("edge_softmax", logits)
    expect("edge_softmax", "logits", logits, (csc.num_edges, None))
    return autograd_attention.EdgeSoftmax.apply(csc, logits).to(dtype)


@eager
def gat_scores(csc: CSC, a_src: Tensor, a_dst: Tensor, slope: float) -> Tensor:
    """GAT's attention logits ``leaky_relu(a_src[u] + a_dst[v])`` (Velickovic et al. 2018, eq. 3).

    Args:
        csc: The pattern.
        a_src: (S, H).
        a_dst: (D, H).
        slope: Of the leaky ReLU below 0.

    Returns:
        (E, H).

    Raises:
        InputError: If the shapes do not fit.
    """
    dtype, (a_src, a_dst) = same_type("gat_scores", a_src, a_dst)
    expect("gat_scores", "a_src", a_src, (csc.num_src, None))
    expect("gat_scores", "a_dst", a_dst, (csc.num_dst, a_src.shape[1]))
    gates = (a_src.detach(), a_dst.detach())
    return autograd_attention.PairScores.apply(csc, float(slope), *gates, a_src, a_dst).to(dtype)


@eager
def gatv2_scores(csc: CSC, x_src: Tensor, x_dst: Tensor, att: Tensor, slope: float) -> Tensor:
    """GATv2's logits ``sum_f att * leaky_relu(x_src[u] + x_dst[v])`` (Brody et al. 2022, eq. 7).

    Args:
        csc: The pattern.
        x_src: (S, H, F).
        x_dst: (D, H, F).
        att: (H, F).
        slope: Of the leaky ReLU below 0.

    Returns:
        (E, H). No (E, H, F) buffer is made, on CPU in derivatives of any order neither.

    Raises:
        InputError: If the shapes do not fit.
    """
    dtype, (x_src, x_dst, att) = same_type("gatv2_scores", x_src, x_dst, att)
    expect("gatv2_scores", "x_src", x_src, (csc.num_src, None, None))
    expect("gatv2_scores", "x_dst", x_dst, (csc.num_dst, *x_src.shape[1:]))
    expect("gatv2_scores", "att", att, tuple(x_src.shape[1:]))
    gates = (x_src.detach(), x_dst.detach())
    return autograd_attention.GATv2Scores.apply(csc, float(slope), *gates, x_src, x_dst, att).to(
        dtype
    )
