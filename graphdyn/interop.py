"""Graph to and from PyTorch Geometric and networkx; called by the methods of :class:`Graph`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from graphdyn.errors import InputError
from graphdyn.graph import Graph, Split
from graphdyn.sparse import CSC, Sparse

if TYPE_CHECKING:
    import networkx
    from torch_geometric.data import Data

MASKS = {"train": "train_mask", "valid": "val_mask", "test": "test_mask"}


def graph_from_pyg(data: Data, *, name: str = "graph", split: int = 0, **fields: Any) -> Graph:
    """See :meth:`Graph.from_pyg`; ``split`` is the column of masks of shape (N, K).

    Raises:
        InputError: If there are no edges, or anything does not fit.
    """
    edges, weight = _edges_of(data)
    given = {
        "name": name,
        **_labels_of(data),
        "x": _features_of(data),
        "split": _masks_of(data, split),
    }
    given.update(fields)
    return Graph.from_edge_index(edges, data.num_nodes, edge_weight=weight, **given)


def _edges_of(data: Any) -> tuple[Tensor, Tensor | None]:
    if data.get("edge_index") is not None:
        weight = data.get("edge_weight")
        attr = data.get("edge_attr")
        if weight is None and attr is not None and (attr.dim() == 1 or attr.shape[1] == 1):
            weight = attr
        return data.edge_index.cpu(), None if weight is None else weight.reshape(-1).cpu()
    adj_t = data.get("adj_t")
    if adj_t is None:
        raise InputError("the PyG data has neither edge_index nor adj_t; one is needed.")
    if not isinstance(adj_t, Tensor) or adj_t.layout is torch.strided:
        raise InputError(
            f"adj_t is a {type(adj_t).__name__}; expected a torch sparse tensor "
            "(T.ToSparseTensor(layout=torch.sparse_csr))."
        )
    # Row v of adj_t lists the sources u of the edges u -> v.
    coo = adj_t.cpu().to_sparse_coo().coalesce()
    dst, src = coo.indices()
    values = coo.values()
    return torch.stack([src, dst]), None if bool((values == 1).all()) else values.float()


def _features_of(data: Data) -> Tensor | Sparse | None:
    x = data.get("x")
    if x is None:
        return None
    if x.layout is torch.strided:
        return x.cpu() if x.is_floating_point() else x.cpu().float()
    csr = x.cpu().to_sparse_csr()
    pattern = CSC(csr.crow_indices(), csr.col_indices(), csr.shape[1])
    return Sparse(pattern, csr.values().float())


def _labels_of(data: Data) -> dict[str, Any]:
    y = data.get("y")
    if y is None:
        return {}
    y = y.cpu()
    if y.dim() == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.dim() == 2:
        return {"y": y.float(), "num_classes": y.shape[1], "task": "multilabel"}
    if y.is_floating_point():
        y = torch.where(y.isnan(), -1.0, y)
    return {"y": y.long(), "num_classes": int(y.max()) + 1}


def _masks_of(data: Data, column: int) -> Split | None:
    masks = [data.get(name) for name in MASKS.values()]
    if any(mask is None for mask in masks):
        return None
    wide = any(mask.dim() == 2 for mask in masks)
    return Split(*(_ids(mask, column) for mask in masks), id=f"mask-{column}" if wide else "mask")


def _ids(mask: Tensor, column: int) -> Tensor:
    if mask.dim() == 2:
        if not 0 <= column < mask.shape[1]:
            raise InputError(f"the masks hold {mask.shape[1]} splits; there is no number {column}.")
        mask = mask[:, column]
    return torch.nonzero(mask.cpu()).flatten()


def graph_to_pyg(graph: Graph) -> Data:
    """See :meth:`Graph.to_pyg`."""
    from torch_geometric.data import Data

    data = Data(edge_index=graph.edge_index, num_nodes=graph.num_nodes)
    if graph.x is not None:
        data.x = _torch_csr(graph.x) if isinstance(graph.x, Sparse) else graph.x
    if graph.y is not None:
        data.y = graph.y
    if graph.edge_weight is not None:
        data.edge_weight = graph.edge_weight
    for name, ids in graph.split.parts().items() if graph.split else ():
        mask = torch.zeros(graph.num_nodes, dtype=torch.bool, device=graph.device)
        mask[ids] = True
        data[MASKS[name]] = mask
    return data


def _torch_csr(x: Sparse) -> Tensor:
    values = torch.ones(x.csc.num_edges, device=x.device) if x.values is None else x.values
    parts = (x.csc.indptr.long(), x.csc.indices.long(), values)
    return torch.sparse_csr_tensor(*parts, size=x.shape, check_invariants=True)


def graph_from_networkx(graph: networkx.Graph, **fields: Any) -> Graph:
    """See :meth:`Graph.from_networkx`.

    Raises:
        InputError: If only some nodes have ``x`` or ``y``, or anything does not fit.
    """
    number = {node: i for i, node in enumerate(graph)}
    pairs = [(number[u], number[v], w) for u, v, w in graph.edges(data="weight")]
    edges = np.array([(u, v) for u, v, _ in pairs], np.int64).reshape(-1, 2).T
    weighted = any(w is not None for *_, w in pairs)
    weight = np.array([1.0 if w is None else w for *_, w in pairs], np.float32)
    if not graph.is_directed():
        other = edges[0] != edges[1]  # a loop is its own reverse
        edges = np.concatenate([edges, edges[::-1, other]], axis=1)
        weight = np.concatenate([weight, weight[other]])
    given: dict[str, Any] = {"name": str(graph.name) or "graph", **_node_fields(graph)}
    given.update(fields)
    edge_weight = torch.from_numpy(weight) if weighted else None
    return Graph.from_edge_index(edges, len(number), edge_weight=edge_weight, **given)


def _node_fields(graph: networkx.Graph) -> dict[str, Any]:
    found: dict[str, Any] = {}
    xs, ys = ([attrs.get(key) for _, attrs in graph.nodes(data=True)] for key in ("x", "y"))
    for key, values in (("x", xs), ("y", ys)):
        missing = sum(value is None for value in values)
        if 0 < missing < len(values):
            raise InputError(
                f"{missing} of {len(values)} nodes lack '{key}'; give it to all or none."
            )
    if xs and xs[0] is not None:
        found["x"] = torch.from_numpy(
            np.stack([np.atleast_1d(np.asarray(x)) for x in xs]).astype(np.float32)
        )
    if ys and ys[0] is not None:
        y = torch.from_numpy(np.array(ys))
        many = y.dim() == 2
        found["y"] = y.float() if many else y.long()
        found["num_classes"] = y.shape[1] if many else int(y.max()) + 1
        found["task"] = "multilabel" if many else "multiclass"
    return found


def graph_to_networkx(graph: Graph) -> networkx.DiGraph:
    """See :meth:`Graph.to_networkx`."""
    import networkx as nx

    src, dst = graph.csc.indices.cpu().numpy(), graph.csc.dst.cpu().numpy()
    parallel = bool(((src[1:] == src[:-1]) & (dst[1:] == dst[:-1])).any())
    out = (nx.MultiDiGraph if parallel else nx.DiGraph)(name=graph.name)
    x = graph.x.to_dense() if isinstance(graph.x, Sparse) else graph.x
    out.add_nodes_from(range(graph.num_nodes))
    for key, values in (("x", x), ("y", graph.y)):
        if values is not None:
            nx.set_node_attributes(out, dict(enumerate(values.cpu().tolist())), key)
    if graph.edge_weight is None:
        out.add_edges_from(zip(src.tolist(), dst.tolist()))
    else:
        weight = graph.edge_weight.cpu().tolist()
        out.add_weighted_edges_from(zip(src.tolist(), dst.tolist(), weight))
    return out
