"""Ego graphs: the nodes around each root, drawn hop by hop; every root has its own.

On CPU one thread and Numba; anywhere else torch, with the same integers. Shapes: N nodes of the
graph, B roots, M nodes of all ego graphs together.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from graphdyn.kernels import torch_ego
from graphdyn.kernels.backend import compiled
from graphdyn.kernels.door import eager
from graphdyn.kernels.draw import Workspace
from graphdyn.sparse import CSC


class Ego(NamedTuple):
    """The nodes of ego graphs, one group a root; a node may stand in many groups.

    Attributes:
        node: (M,) int64 ids, distinct in each group; the root first, then by distance.
        cuts: (B + 1,) int64; the group of root i is ``node[cuts[i]:cuts[i + 1]]``.
    """

    node: Tensor
    cuts: Tensor


@eager
def ego(
    csc: CSC,
    loops: Tensor | None,
    roots: Tensor,
    depth: int,
    k: int,
    bits: int,
    workspace: Workspace,
) -> Ego:
    """Nodes within ``depth`` hops of each root, along up to k in-edges a node.

    Edges are drawn uniformly without replacement, once for each node of a group, as
    :func:`graphdyn.kernels.draw.draw_uniform` draws them. Draws depend on (bits, root, node) alone:
    they are independent between groups, and a group does not depend on the other roots.

    Args:
        csc: The full, square pattern.
        loops: (N,) int64 from :func:`graphdyn.kernels.draw.find_loops`, or ``None``. Loops lead
            nowhere and take no draw.
        roots: (B,) int64 ids.
        depth: Hops, at least 1.
        k: In-edges a node; -1 is all.
        bits: 64 key bits.
        workspace: Of this thread, on CPU; not read elsewhere.

    Returns:
        Groups in the order of the roots.
    """
    if not compiled(csc.device):
        return Ego(*torch_ego.ego(csc, loops, roots, depth, k, bits))
    from graphdyn.kernels import numba_ego as loop
    from graphdyn.kernels.numba_draw import word

    cuts = torch.empty(roots.numel() + 1, dtype=torch.int64)
    pattern = (csc.indptr.numpy(), csc.indices.numpy(), None if loops is None else loops.numpy())
    scratch = (workspace.table.numpy(), workspace.next_stamp())
    seeds = (roots.numpy(), depth, k, word(bits))
    node = loop.ego(*pattern, *seeds, *scratch, cuts.numpy())
    return Ego(torch.from_numpy(node), cuts)
