"""Parts of raw files to the arrays of a Graph, in memory or in the files of a store.

Array names: ``indptr``, ``indices``, ``x`` or ``x_indptr`` / ``x_indices`` / ``x_values``, ``y``,
``edge_weight``, and ``attr.NAME`` for other per-node arrays.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from graphdyn.data.cards import Card
from graphdyn.data.parts import Parts, Rows
from graphdyn.data.structure import Allocate, Rules, build_csc, in_memory
from graphdyn.errors import DataError, InputError
from graphdyn.graph import Graph
from graphdyn.sparse import CSC, INT32_MAX, Sparse

Layout = Literal["auto", "dense", "sparse", "none"]
SPARSE_BELOW = 0.25  # density at which 8 bytes a stored entry cost more than 4 bytes a cell
NARROW = 64  # with fewer columns a dense matrix is small and faster


def assemble(
    parts: Parts,
    rules: Rules,
    layout: Layout = "auto",
    allocate: Allocate = in_memory,
    scratch: Path | None = None,
) -> dict[str, np.ndarray]:
    """Turn raw parts into the arrays of a graph.

    Args:
        parts: What a reader returned.
        rules: What happens to reverse edges, duplicates and loops.
        layout: Features dense or sparse; ``"auto"`` is sparse if they are wide and mostly zero.
        allocate: Where the arrays lie.
        scratch: Folder for edges that do not fit in memory; ``None`` keeps them in memory.

    Raises:
        DataError: If an edge leaves the graph or a feature is not finite.
    """
    out: dict[str, np.ndarray] = {}
    if parts.edge_weight is None:
        csc = build_csc(parts.edges, parts.num_nodes, rules, allocate, scratch)
        out["indptr"], out["indices"] = csc
    else:
        out.update(_weighted(parts, rules))
    out.update(_features(parts, layout, allocate))
    if parts.y is not None:
        out["y"] = _labels(parts.y)
    out.update({f"attr.{name}": value for name, value in parts.attrs.items()})
    return out


def graph_of(card: Card, tensors: dict[str, torch.Tensor]) -> Graph:
    """The graph of named arrays, without a split and unchecked."""
    x: Any = tensors.get("x")
    if "x_indptr" in tensors:
        width = int(tensors["x_shape"][1])
        pattern = CSC(tensors["x_indptr"], tensors["x_indices"], width)
        x = Sparse(pattern, tensors["x_values"])
    y = tensors.get("y")
    return Graph(
        CSC(tensors["indptr"], tensors["indices"], tensors["indptr"].numel() - 1),
        x=x,
        y=y,
        edge_weight=tensors.get("edge_weight"),
        num_classes=_num_classes(card, y),
        task=card.task,  # pyright: ignore[reportArgumentType]
        metric=card.metric,
        name=card.name,
        node_attrs={k[5:]: v for k, v in tensors.items() if k.startswith("attr.")},
    )


def check_counts(card: Card, graph: Graph, symmetrised: bool) -> None:
    """Raise :class:`DataError` if a graph is not of the size that its card states."""
    directed = card.undirected and not symmetrised
    wanted = {
        "nodes": (graph.num_nodes, card.counts.nodes),
        "edges": (graph.num_edges, card.counts.edges_directed if directed else card.counts.edges),
        "features": (graph.num_features, card.counts.features),
        "classes": (graph.num_classes, card.counts.classes),
    }
    if symmetrised and not card.undirected:
        del wanted["edges"]  # the card counts them as stored
    if graph.x is None:
        del wanted["features"]
    for what, (got, expected) in wanted.items():
        if expected is not None and got != expected:
            raise DataError(
                f"{card.name} has {got:,} {what}, but its card says {expected:,}; "
                f"`graphdyn data verify {card.name}` tells which raw file differs."
            )


def _num_classes(card: Card, y: torch.Tensor | None) -> int:
    if y is None:
        return 0
    if card.counts.classes is not None:
        return card.counts.classes
    return y.shape[1] if card.task == "multilabel" else max(int(y.max()) + 1, 1)


def _weighted(parts: Parts, rules: Rules) -> dict[str, np.ndarray]:
    """Edge lists with weights are of the user's own and fit in memory."""
    pieces = list(parts.edges())
    edges = np.concatenate([np.stack(piece) for piece in pieces], axis=1)
    weight = np.asarray(parts.edge_weight, np.float32)
    if rules.drop_loops:
        keep = edges[0] != edges[1]
        edges, weight = edges[:, keep], weight[keep]
    shell = Graph.from_edge_index(
        edges,
        parts.num_nodes,
        edge_weight=torch.from_numpy(weight),
        undirected=rules.undirected,
        coalesce=rules.coalesce,
    )
    assert shell.edge_weight is not None
    return {
        "indptr": shell.csc.indptr.numpy(),
        "indices": shell.csc.indices.numpy(),
        "edge_weight": shell.edge_weight.numpy(),
    }


def _features(parts: Parts, layout: Layout, allocate: Allocate) -> dict[str, np.ndarray]:
    if layout not in get_args(Layout):
        raise InputError(f"features='{layout}' is not known; choose auto, dense, sparse or none.")
    x = parts.x
    if x is None:
        return {}
    if isinstance(x, Rows):
        if layout == "sparse":
            raise InputError("these features are too large to be made sparse; use auto or dense.")
        return {"x": _copy_rows(x, allocate)}
    stored = x.nnz if hasattr(x, "nnz") else int(np.count_nonzero(x))
    few = stored < SPARSE_BELOW * x.shape[0] * x.shape[1] and x.shape[1] >= NARROW
    if layout == "sparse" or (layout == "auto" and few):
        return _sparse(x)
    dense = x.toarray() if hasattr(x, "nnz") else x
    return {"x": np.ascontiguousarray(dense, dtype=np.float32)}


def _sparse(x) -> dict[str, np.ndarray]:
    import scipy.sparse as sp

    matrix: Any = sp.csr_array(x)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    kind = np.int32 if max(matrix.nnz, *matrix.shape) <= INT32_MAX else np.int64
    return {
        "x_indptr": matrix.indptr.astype(kind),
        "x_indices": matrix.indices.astype(kind),
        "x_values": matrix.data.astype(np.float32),
        "x_shape": np.array(matrix.shape, np.int64),
    }


def _copy_rows(rows: Rows, allocate: Allocate) -> np.ndarray:
    out = allocate("x", rows.shape, np.dtype(np.float32))
    at = 0
    for piece in rows.chunks():
        out[at : at + len(piece)] = piece
        at += len(piece)
    if at != rows.shape[0]:
        raise DataError(f"{at:,} feature rows for {rows.shape[0]:,} nodes; download again.")
    return out


def _labels(y: np.ndarray) -> np.ndarray:
    """int64 with -1 for unlabelled, or float32 for several labels a node."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2:
        return np.ascontiguousarray(y, dtype=np.float32)
    if np.issubdtype(y.dtype, np.floating):
        y = np.where(np.isnan(y), -1, y)
    return np.ascontiguousarray(y, dtype=np.int64)
