"""Graph: structure by target, features, labels and splits. Frozen; checks itself in words.

Shapes: N nodes, E directed edges, F features, C classes. Message edge ``u -> v`` is PyG's
``edge_index[0] = u, edge_index[1] = v`` and is stored in row v.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from graphdyn.errors import InputError
from graphdyn.sparse import CSC, Sparse, compress

if TYPE_CHECKING:
    import networkx
    from torch_geometric.data import Data

Features = Tensor | Sparse
Norm = Literal["sym", "mean", "column", "none"]
Task = Literal["multiclass", "multilabel"]


@dataclass(frozen=True, eq=False)
class Split:
    """Which nodes train, validate and test.

    Attributes:
        train: (n,) int64 node ids, ascending; likewise ``valid`` and ``test``.
        valid: See ``train``.
        test: See ``train``.
        id: Names the split in every record, for example ``"public"`` or ``"geom-gcn-3"``.
    """

    train: Tensor
    valid: Tensor
    test: Tensor
    id: str = "custom"

    def parts(self) -> dict[str, Tensor]:
        """The three index tensors by name."""
        return {"train": self.train, "valid": self.valid, "test": self.test}

    def to(self, device: torch.device | str) -> Split:
        """The same split on another device."""
        return Split(self.train.to(device), self.valid.to(device), self.test.to(device), self.id)


@dataclass(frozen=True)
class Propagation:
    """Which matrix a model multiplies its hidden states with. A model declares one.

    Attributes:
        norm: ``"sym"`` is D^-1/2 A D^-1/2 (Kipf & Welling 2017), ``"mean"`` is D^-1 A, ``"none"`` is A;
            D holds the in-degrees. ``"column"`` is A D^-1 with the out-degrees, so that columns sum to 1.
            Degrees are those of the full graph, weighted where edges have weights.
        self_loops: Add one loop to every node that has none, before normalising. Loops that exist keep
            their weight (PyG's ``add_remaining_self_loops``).
        loop_weight: Of loops that are added.
    """

    norm: Norm = "sym"
    self_loops: bool = True
    loop_weight: float = 1.0


@dataclass(frozen=True, eq=False)
class Graph:
    """A graph with node features, labels and a split. Immutable.

    Attributes:
        csc: The structure, compressed by target.
        x: (N, F) float tensor or :class:`Sparse`; ``None`` without features.
        y: (N,) int64 classes with -1 for unlabelled, or (N, C) float32 of 0/1 (NaN for unlabelled)
            when ``task`` is ``"multilabel"``; ``None`` without labels.
        split: Train, validation and test nodes.
        edge_weight: (E,) float32 in the order of ``csc``, or ``None``.
        num_classes: C; 0 without labels.
        task: ``"multiclass"`` or ``"multilabel"``.
        metric: ``"accuracy"``, ``"f1-micro"`` or ``"roc-auc"``: how the data set is judged.
        name: For records.
        node_attrs: Other per-node tensors by name (years, sparse ids); carried, never read by models.
    """

    csc: CSC
    x: Features | None = None
    y: Tensor | None = None
    split: Split | None = None
    edge_weight: Tensor | None = None
    num_classes: int = 0
    task: Task = "multiclass"
    metric: str = "accuracy"
    name: str = "graph"
    node_attrs: dict[str, Tensor] = field(default_factory=dict)
    _cache: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def num_nodes(self) -> int:
        """N."""
        return self.csc.num_dst

    @property
    def num_edges(self) -> int:
        """E, directed edges as stored: an undirected edge counts twice."""
        return self.csc.num_edges

    @property
    def num_features(self) -> int:
        """F; 0 without features."""
        return 0 if self.x is None else self.x.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the graph lies."""
        return self.csc.device

    @property
    def edge_index(self) -> Tensor:
        """(2, E) int64 in PyG's convention, sorted by target."""
        return torch.stack([self.csc.indices.long(), self.csc.dst.long()])

    def adjacency(self, propagation: Propagation = Propagation()) -> Sparse:
        """The propagation matrix of the full graph, computed once and kept.

        Args:
            propagation: Normalisation and self-loops.

        Returns:
            (N, N) matrix with float32 values; ``None`` values (all ones) when neither a norm nor edge
            weights ask for any.
        """
        if propagation not in self._cache:
            self._cache[propagation] = _adjacency(self, propagation)
        return self._cache[propagation]

    def with_split(self, split: Split) -> Graph:
        """The same graph under another split; propagation matrices already computed are shared."""
        out = replace(self, split=split)
        object.__setattr__(out, "_cache", self._cache)
        return out

    def to(self, device: torch.device | str) -> Graph:
        """The same graph on another device."""
        if torch.device(device) == self.device:
            return self

        def move(value):
            return None if value is None else value.to(device)

        attrs = {name: move(value) for name, value in self.node_attrs.items()}
        moved = {k: move(getattr(self, k)) for k in ("csc", "x", "y", "split", "edge_weight")}
        return replace(self, **moved, node_attrs=attrs)

    def check(self) -> Graph:
        """Raise :class:`InputError`, naming the first thing wrong; return the graph itself."""
        _check_structure(self)
        _check_features(self)
        _check_labels(self)
        if self.split is not None:
            check_split(self, self.split)
        return self

    @classmethod
    def from_edge_index(
        cls,
        edge_index: Tensor | np.ndarray,
        num_nodes: int | None = None,
        *,
        edge_weight: Tensor | None = None,
        undirected: bool = False,
        coalesce: bool = False,
        **fields: Any,
    ) -> Graph:
        """From an edge list in PyG's convention.

        Args:
            edge_index: (2, E) integers; row 0 sources, row 1 targets.
            num_nodes: N; by default the largest id plus one.
            edge_weight: (E,) weights in the order of ``edge_index``.
            undirected: Add the reverse of every edge, then merge duplicates (weights: the mean).
            coalesce: Merge duplicate edges (weights: the sum).
            **fields: Any other field of :class:`Graph`.

        Returns:
            A checked graph.

        Raises:
            InputError: If the edges or any field do not fit.
        """
        edges = np.asarray(edge_index)
        if edges.ndim != 2 or edges.shape[0] != 2:
            raise InputError(f"edge_index has shape {tuple(edges.shape)}; expected (2, E).")
        if edges.size and not np.issubdtype(edges.dtype, np.integer):
            raise InputError(f"edge_index holds {edges.dtype}; expected integers.")
        edges = edges.astype(np.int64, copy=False)
        n = int(edges.max() + 1 if edges.size else 0) if num_nodes is None else int(num_nodes)
        _check_range(edges, n)
        weight = None if edge_weight is None else np.asarray(edge_weight, dtype=np.float32)
        if weight is not None and weight.shape != (edges.shape[1],):
            raise InputError(f"edge_weight has shape {weight.shape}; expected ({edges.shape[1]},).")
        if undirected:
            edges = np.concatenate([edges, edges[::-1]], axis=1)
            weight = None if weight is None else np.concatenate([weight, weight])
        csc, order = compress(edges[0], edges[1], n, n)
        values = None if weight is None else torch.from_numpy(weight[order])
        if undirected or coalesce:
            csc, values = _merge(csc, values, mean=undirected)
        return cls(csc, edge_weight=values, **fields).check()

    @classmethod
    def from_pyg(cls, data: Data, *, name: str = "graph", **fields: Any) -> Graph:
        """From a PyG ``Data``: edge_index (or torch-CSR ``adj_t``), x, y, masks, edge_weight.

        Masks of shape (N, K) hold K splits: the first is taken; use :func:`graphdyn.data.splits` for
        others. Labels of shape (N, 1) are flattened, (N, C) are multi-label.
        """
        from graphdyn.interop import graph_from_pyg

        return graph_from_pyg(data, name=name, **fields)

    def to_pyg(self) -> Data:
        """As a PyG ``Data`` with edge_index, x (sparse features become torch CSR), y and masks."""
        from graphdyn.interop import graph_to_pyg

        return graph_to_pyg(self)

    @classmethod
    def from_networkx(cls, graph: networkx.Graph, **fields: Any) -> Graph:
        """From networkx, nodes in its iteration order; undirected edges become two directed ones.

        Node attributes ``x`` (vector) and ``y`` (class), and the edge attribute ``weight``, are read
        where present.
        """
        from graphdyn.interop import graph_from_networkx

        return graph_from_networkx(graph, **fields)

    def to_networkx(self) -> networkx.DiGraph:
        """As ``networkx.DiGraph`` (``MultiDiGraph`` with parallel edges), attributes x, y, weight."""
        from graphdyn.interop import graph_to_networkx

        return graph_to_networkx(self)

    def __repr__(self) -> str:
        split = f", split {self.split.id}" if self.split else ""
        return (
            f"Graph({self.name}: {self.num_nodes} nodes, {self.num_edges} edges, "
            f"{self.num_features} features, {self.num_classes} classes{split})"
        )


def _adjacency(graph: Graph, propagation: Propagation) -> Sparse:
    csc, weight = graph.csc, graph.edge_weight
    if propagation.self_loops:
        csc, weight = _add_remaining_loops(csc, weight, propagation.loop_weight)
    if propagation.norm == "none":
        return Sparse(csc, weight)
    # float64 for the degrees: they are the ground that every estimator is compared against.
    ones = torch.ones(csc.num_edges, dtype=torch.float64, device=csc.device)
    w = ones if weight is None else weight.double()
    degree = torch.zeros(csc.num_dst, dtype=torch.float64, device=csc.device)
    degree.index_add_(0, csc.indices if propagation.norm == "column" else csc.dst, w)
    if propagation.norm in ("mean", "column"):
        owner = csc.dst if propagation.norm == "mean" else csc.indices
        values = w / degree.clamp(min=torch.finfo(torch.float64).tiny)[owner]
    elif propagation.norm == "sym":
        inverse = torch.where(degree > 0, degree.rsqrt(), 0.0)
        values = inverse[csc.dst] * w * inverse[csc.indices]
    else:
        raise InputError(f"unknown norm '{propagation.norm}'; known: sym, mean, column, none.")
    return Sparse(csc, values.float())


def _add_remaining_loops(csc: CSC, weight: Tensor | None, loop: float) -> tuple[CSC, Tensor | None]:
    src, dst = csc.indices.long(), csc.dst.long()
    has_loop = torch.zeros(csc.num_dst, dtype=torch.bool, device=csc.device)
    has_loop[dst[src == dst]] = True
    if bool(has_loop.all()):
        return csc, weight
    missing = torch.nonzero(~has_loop).flatten()
    src, dst = torch.cat([src, missing]), torch.cat([dst, missing])
    out, order = compress(src.cpu().numpy(), dst.cpu().numpy(), csc.num_src, csc.num_dst)
    if weight is None and loop != 1:
        weight = torch.ones(csc.num_edges, device=csc.device)
    if weight is not None:
        weight = torch.cat([weight, weight.new_full((missing.numel(),), loop)])
        weight = weight[torch.from_numpy(order).to(weight.device)]
    return out.to(csc.device), weight


def _merge(csc: CSC, values: Tensor | None, *, mean: bool) -> tuple[CSC, Tensor | None]:
    """Merge parallel edges of a sorted pattern; weights add up, or are averaged."""
    src, dst = csc.indices, csc.dst
    first = torch.ones(csc.num_edges, dtype=torch.bool)
    first[1:] = (src[1:] != src[:-1]) | (dst[1:] != dst[:-1])
    indptr = torch.zeros_like(csc.indptr)
    indptr[1:] = torch.bincount(dst[first], minlength=csc.num_dst).cumsum(0)
    merged = CSC(indptr, src[first], csc.num_src)
    if values is not None:
        group = first.long().cumsum(0) - 1
        summed = torch.zeros(merged.num_edges).index_add_(0, group, values)
        values = summed / torch.bincount(group) if mean else summed
    return merged, values


def _check_range(edges: np.ndarray, n: int) -> None:
    bad = np.flatnonzero((edges < 0) | (edges >= n)) if edges.size else np.empty(0)
    if bad.size:
        e = int(bad[0] % edges.shape[1])
        raise InputError(
            f"edge {e} is {edges[0, e]} -> {edges[1, e]}, but node ids must lie in 0..{n - 1}; "
            f"{bad.size} endpoint(s) are out of range."
        )


def _check_structure(graph: Graph) -> None:
    csc = graph.csc
    if graph.num_nodes == 0:
        raise InputError("the graph has no nodes; at least one is needed.")
    if csc.num_src != csc.num_dst:
        raise InputError(f"the structure is {csc.num_dst} x {csc.num_src}; it must be square.")
    start, end = int(csc.indptr[0]), int(csc.indptr[-1])
    if start != 0 or end != csc.num_edges or bool((csc.indptr.diff() < 0).any()):
        raise InputError("indptr does not rise from 0 to the number of edges; rebuild the graph.")
    if csc.num_edges and (int(csc.indices.min()) < 0 or int(csc.indices.max()) >= csc.num_src):
        raise InputError(f"an edge leaves the graph: node ids must lie in 0..{csc.num_src - 1}.")
    weight = graph.edge_weight
    if weight is not None and weight.shape != (csc.num_edges,):
        raise InputError(
            f"edge_weight has shape {tuple(weight.shape)}; expected ({csc.num_edges},)."
        )
    if weight is not None and not bool(torch.isfinite(weight).all()):
        raise InputError("edge_weight holds NaN or infinity; every weight must be finite.")


def _check_features(graph: Graph) -> None:
    x = graph.x
    if x is None:
        return
    if len(x.shape) != 2 or x.shape[0] != graph.num_nodes:
        raise InputError(f"x has shape {tuple(x.shape)}; expected ({graph.num_nodes}, F).")
    values = x.values if isinstance(x, Sparse) else x
    if values is None:
        return
    if not values.is_floating_point():
        raise InputError(f"x holds {values.dtype}; expected floating point (use x.float()).")
    bad = first_not_finite(values)
    if bad is not None:
        row = bad if isinstance(x, Tensor) else int(x.csc.dst[bad])
        raise InputError(f"x of node {row} holds NaN or infinity; every feature must be finite.")


def first_not_finite(values: Tensor, chunk: int = 1 << 20) -> int | None:
    """First row with NaN or infinity, or ``None``; reads in chunks, so memory-mapped data may pass."""
    rows = max(1, chunk // max(1, values[:1].numel()))
    for start in range(0, values.shape[0], rows):
        part = values[start : start + rows]
        if not bool(torch.isfinite(part).all()):
            flat = torch.isfinite(part.reshape(part.shape[0], -1)).all(1)
            return start + int(torch.nonzero(~flat)[0])
    return None


def _check_labels(graph: Graph) -> None:
    y, n, c = graph.y, graph.num_nodes, graph.num_classes
    if y is None:
        return
    if graph.task == "multilabel":
        if y.shape != (n, c):
            raise InputError(f"y has shape {tuple(y.shape)}; expected ({n}, {c}) for multi-label.")
        return
    if y.shape != (n,) or y.is_floating_point():
        raise InputError(f"y is {y.dtype} of shape {tuple(y.shape)}; expected ({n},) integers.")
    low, high = int(y.min()), int(y.max())
    if low < -1 or high >= c:
        raise InputError(f"labels span {low}..{high}; expected 0..{c - 1}, or -1 for unlabelled.")


def check_split(graph: Graph, split: Split) -> None:
    """Raise :class:`InputError` if a split does not fit a graph: ids, overlaps, unlabelled nodes."""
    seen = torch.zeros(graph.num_nodes, dtype=torch.uint8, device=graph.device)
    for name, ids in split.parts().items():
        if ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= graph.num_nodes):
            raise InputError(f"the {name} split holds ids outside 0..{graph.num_nodes - 1}.")
        if torch.unique(ids).numel() != ids.numel():
            raise InputError(f"the {name} split lists a node twice.")
        if bool(seen[ids].any()):
            node = int(ids[seen[ids].bool()][0])
            raise InputError(
                f"node {node} is in two splits; train, valid and test must not overlap."
            )
        seen[ids] = 1
    if split.train.numel() == 0:
        raise InputError("the training split is empty; at least one training node is needed.")
    if graph.y is None or graph.task == "multilabel":
        return
    for name, ids in split.parts().items():
        if bool((graph.y[ids] < 0).any()):
            raise InputError(f"the {name} split holds unlabelled nodes (label -1).")
