"""Plans as PyTorch Geometric's ``Data``, for unmodified PyG models; :mod:`graphdyn.pyg_loader` makes the plans.

Shapes: N nodes and E edges of a batch, B seeds, L layers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from graphdyn.batch import Batch, Block, Plan
from graphdyn.errors import InputError
from graphdyn.graph import Features, Graph
from graphdyn.kernels.draw import take_rows
from graphdyn.sparse import CSC, Sparse

if TYPE_CHECKING:
    from torch_geometric.data import Data


class Adj(NamedTuple):
    """One layer of a batch, bipartite: what PyG's older sampling examples call ``adjs``.

    Call a layer with ``conv((x, x[: adj.size[1]]), adj.edge_index, adj.edge_weight)``; ``GCNConv``, which
    takes no pairs, with ``conv(x, adj.edge_index, adj.edge_weight)[: adj.size[1]]``.

    Attributes:
        edge_index: (2, E) int64 local ids; targets are the first of the sources.
        edge_weight: (E,) float32, weight times scale.
        e_id: (E,) int64 ids in the full propagation matrix.
        size: Number of sources, number of targets.
    """

    edge_index: Tensor
    edge_weight: Tensor
    e_id: Tensor
    size: tuple[int, int]

    @property
    def adj_t(self) -> Tensor:
        """As a torch CSR matrix (targets, sources), which ``SAGEConv`` takes with its weights."""
        index = self.edge_index.flip(0)
        coo = torch.sparse_coo_tensor(
            index, self.edge_weight, self.size[::-1], check_invariants=True
        )
        return coo.coalesce().to_sparse_csr()  # which wants rows sorted, parallel edges as one


def to_adjs(plan: Plan | Batch) -> list[Adj]:
    """The blocks of a plan in PyG's terms, first layer first; one that serves every layer stays one.

    Args:
        plan: From any sampler. Its seeds are ``plan.rows`` of the last layer's targets.

    Returns:
        One a block.
    """
    return [_adj(block) for block in plan.blocks]


def to_data(
    plan: Plan | Batch, graph: Graph, *, num_layers: int | None = None, adjs: bool = False
) -> Data:
    """A batch for unmodified PyG models.

    Seeds are the first ``batch_size`` nodes; nodes and edges stand in the order of their hops. Plans with
    one block for all layers (full graph, subgraph samplers) fit one ``edge_index`` by nature; of layered
    samplers those with ``reuse=True``, where every node keeps its neighbours in all layers.

    Args:
        plan: From any sampler.
        graph: What it was prepared for; gives labels, and for a plan the features.
        num_layers: L, needed by plans with one block for all layers to fill ``num_sampled_nodes`` and
            ``num_sampled_edges`` (nothing can be trimmed there).
        adjs: Give the layers one by one, see :class:`Adj`, instead of ``edge_index``: any plan fits.

    Returns:
        ``x`` (N, F), ``y`` of all nodes, ``n_id``, ``edge_index`` (2, E), ``edge_weight`` (E,) weight times
        scale, ``edge_scale`` (E,), ``e_id`` (E,) ids in the full propagation matrix, ``seed_weight`` (B,),
        ``node_weight`` (N,) 1 / probability, where one block serves all layers and it is known,
        ``batch_size`` B, ``input_id`` (B,) global ids of the seeds, and the two lists by hop that
        ``torch_geometric.utils.trim_to_layer`` reads. With ``adjs`` a list of L :class:`Adj`.

    Raises:
        InputError: If the layers were drawn independently and ``adjs`` is not set, or the graph has no
            features.
    """
    from torch_geometric.data import Data

    plan, order = _seeds_first(plan)
    n_id = _node_id(plan.blocks[0])
    x = _features(plan, graph, n_id, order)
    fields: dict[str, Any] = {"y": None if graph.y is None else _labels(graph.y, n_id)}
    fields |= _layers(plan, num_layers) if adjs else _edges(plan, num_layers)
    return Data(
        x=x,
        n_id=n_id,
        num_nodes=n_id.numel(),
        batch_size=plan.rows.numel(),
        input_id=plan.seeds,
        seed_weight=plan.seed_weight,
        **{name: value for name, value in fields.items() if value is not None},
    )


def _seeds_first(plan: Any) -> tuple[Any, Tensor | None]:
    """The plan with its seeds as the first nodes, and where each node stood; ``None``: as before."""
    block, rows = plan.blocks[0], plan.rows
    place = torch.arange(rows.numel(), device=rows.device)
    if torch.equal(rows, place):
        return plan, None
    other = torch.ones(block.num_src, dtype=torch.bool, device=rows.device)
    other[rows] = False
    order = torch.cat([rows, torch.nonzero(other).flatten()])
    return replace(plan, blocks=(_permuted(block, order),), rows=place), order


def _permuted(block: Block, order: Tensor) -> Block:
    """A square block with its nodes in another order."""
    csc = block.adjacency.csc
    local = torch.empty_like(order)
    local[order] = torch.arange(order.numel(), device=order.device)
    edges = torch.arange(csc.num_edges, device=order.device)
    rows = Sparse(csc, edges).rows(order)
    assert rows.values is not None
    pick, indices = rows.values, local[rows.csc.indices.long()].to(csc.indices.dtype)

    def take(values: Tensor | None, at: Tensor) -> Tensor | None:
        return None if values is None else values[at]

    pattern = CSC(rows.csc.indptr, indices, csc.num_src)
    edge_id = pick if block.edge_id is None else block.edge_id[pick]
    return Block(
        Sparse(pattern, take(block.adjacency.values, pick)),
        order if block.node_id is None else block.node_id[order],
        edge_id,
        take(block.scale, pick),
        take(block.prob, pick),
        take(block.node_prob, order),
    )


def _features(plan: Plan | Batch, graph: Graph, n_id: Tensor, order: Tensor | None) -> Tensor:
    if isinstance(plan, Batch):
        x: Features = plan.x if order is None else take_rows(plan.x, order)
    elif graph.x is None:
        raise InputError(f"{graph.name} has no features; give x.")
    else:
        x = take_rows(graph.x, n_id)
    return x.to_dense() if isinstance(x, Sparse) else x


def _labels(y: Tensor, n_id: Tensor) -> Tensor:
    return y[n_id.to(y.device)].to(n_id.device)


def _edges(plan: Plan | Batch, num_layers: int | None) -> dict[str, Any]:
    """One edge_index for all layers, and its hops."""
    block, *inner = plan.blocks
    if not all(_is_prefix(b, block) for b in inner):
        raise InputError(
            f"the {len(plan.blocks)} layers of the plan were drawn independently, so one edge_index cannot "
            "hold them; give the sampler reuse=True, or take the layers one by one with adjs=True."
        )
    adj = _adj(block)
    shared = not inner and block.num_src == block.num_dst
    return {
        "edge_index": adj.edge_index,
        "edge_weight": adj.edge_weight,
        "edge_scale": _ones(block) if block.scale is None else block.scale,
        "e_id": adj.e_id,
        "node_weight": block.node_prob.reciprocal()
        if shared and block.node_prob is not None
        else None,
        **(_flat_hops(block, num_layers) if shared else _hops(plan)),
    }


def _layers(plan: Plan | Batch, num_layers: int | None) -> dict[str, Any]:
    adjs = to_adjs(plan)
    return {"adjs": adjs * (num_layers or 1) if len(adjs) == 1 else adjs}


def _hops(plan: Plan | Batch) -> dict[str, list[int]]:
    """Nodes and edges that each hop adds, from the seeds outwards."""
    outer = plan.blocks[0]
    known = [block.num_dst for block in reversed(plan.blocks)]
    nodes = [*known, outer.num_src]
    edges = [int(outer.adjacency.csc.indptr[n]) for n in known]
    return {
        "num_sampled_nodes": [b - a for a, b in zip([0, *nodes], nodes)],
        "num_sampled_edges": [b - a for a, b in zip([0, *edges], edges)],
    }


def _flat_hops(block: Block, num_layers: int | None) -> dict[str, list[int]]:
    """All nodes and edges in the first hop: every layer needs them all."""
    if num_layers is None:
        return {}
    return {
        "num_sampled_nodes": [block.num_src] + [0] * num_layers,
        "num_sampled_edges": [block.adjacency.csc.num_edges] + [0] * (num_layers - 1),
    }


def _is_prefix(inner: Block, outer: Block) -> bool:
    """Whether the rows of a block are the first rows of another, edge by edge."""
    a, b = inner.adjacency, outer.adjacency
    edges = a.csc.num_edges
    pairs = [
        (a.csc.indptr, b.csc.indptr[: inner.num_dst + 1]),
        (a.csc.indices, b.csc.indices[:edges]),
        (_node_id(inner), _node_id(outer)[: inner.num_src]),
        (_weight(inner), _weight(outer)[:edges]),
    ]
    return all(torch.equal(x, y) for x, y in pairs)


def _adj(block: Block) -> Adj:
    csc = block.adjacency.csc
    edges = torch.arange(csc.num_edges, device=csc.device)
    return Adj(
        torch.stack([csc.indices.long(), csc.dst.long()]),
        _weight(block),
        edges if block.edge_id is None else block.edge_id.long(),
        (block.num_src, block.num_dst),
    )


def _weight(block: Block) -> Tensor:
    values = block.adjacency.values
    return _ones(block) if values is None else values


def _ones(block: Block) -> Tensor:
    return torch.ones(block.adjacency.csc.num_edges, device=block.adjacency.device)


def _node_id(block: Block) -> Tensor:
    if block.node_id is None:
        return torch.arange(block.num_src, device=block.adjacency.device)
    return block.node_id
