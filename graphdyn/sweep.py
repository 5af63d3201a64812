"""States of all nodes in tables, filled a chunk of nodes at a time.

Knows of structure and rows, not of models. Shapes: N nodes, F features; a chunk has D targets and S
sources.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphdyn.batch import Block
from graphdyn.graph import Features
from graphdyn.kernels.draw import Workspace, relabel, take_rows
from graphdyn.models.norms import Moments
from graphdyn.sparse import CSC, Sparse


class Table:
    """(N, F) rows of all nodes, in memory or in a file of its own.

    Args:
        rows: Dense or sparse.
        path: The file that dense rows are mapped to.

    Attributes:
        moments: Of the columns, where :meth:`Sweep.fill` was asked to measure them.
    """

    def __init__(self, rows: Features, path: Path | None = None):
        self.rows, self.path = rows, path
        self.moments: Moments | None = None

    @classmethod
    def empty(cls, rows: int, like: Tensor, folder: str | None) -> Table:
        """A table as wide as ``like``; with a folder, in a file there."""
        shape = (rows, like.shape[1])
        if folder is None:
            return cls(torch.empty(shape, dtype=like.dtype))
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".table", delete=False) as file:
            path = file.name
        flat = torch.from_file(path, shared=True, size=math.prod(shape), dtype=like.dtype)
        return cls(flat.view(shape), Path(path))

    def free(self) -> None:
        """Give memory and file back; the table cannot be read any more."""
        del self.rows
        if self.path is not None:
            self.path.unlink(missing_ok=True)


class Sweep:
    """Visits all nodes in chunks.

    Args:
        nodes: N.
        matrix: (N, N) propagation matrix; ``None`` when no rows are gathered.
        chunk: Most targets a chunk; ``None``: all nodes are one.
        device: Where rows are computed.
        folder: Where tables are kept; ``None``: in memory.
    """

    def __init__(
        self,
        nodes: int,
        matrix: Sparse | None,
        *,
        chunk: int | None,
        device: torch.device,
        folder: str | None = None,
    ):
        self.nodes, self.matrix, self.device, self.folder = nodes, matrix, device, folder
        self.cuts = [0, nodes] if chunk is None else _cuts(nodes, matrix, chunk)

    @cached_property
    def workspace(self) -> Workspace:
        """Scratch for local ids."""
        return Workspace(self.nodes)

    def fill(
        self,
        rows: Callable[[Chunk], Tensor],
        *,
        measure: bool = False,
        into: Table | None = None,
        keep: bool = True,
    ) -> Table:
        """A table of what a function makes of each chunk.

        Args:
            rows: From a chunk to the (D, F) rows of its nodes.
            measure: Take the moments of the columns.
            into: Overwrite this table.
            keep: In the folder, where there is one; else in memory.

        Returns:
            The table.
        """
        table, moments = into, None
        for start, stop in zip(self.cuts, self.cuts[1:]):
            out = rows(Chunk(self, start, stop))
            table = table or Table.empty(self.nodes, out, self.folder if keep else None)
            table.rows[start:stop] = out  # pyright: ignore[reportIndexIssue]
            if measure:
                part = Moments.of(out)
                moments = part if moments is None else moments.merge(part)
            del out  # else it would live until the next chunk is done
        assert table is not None
        table.moments = moments
        return table


def _cuts(nodes: int, matrix: Sparse | None, chunk: int) -> list[int]:
    """Where chunks begin and end: at most ``chunk`` nodes, and no more edges than is their due."""
    if matrix is None:
        return [*range(0, nodes, chunk), nodes]
    indptr = matrix.csc.indptr.cpu().numpy()
    budget = chunk * max(1, math.ceil(matrix.csc.num_edges / nodes))
    cuts = [0]
    while cuts[-1] < nodes:
        start = cuts[-1]
        full = int(np.searchsorted(indptr, int(indptr[start]) + budget, "right")) - 1
        cuts.append(max(start + 1, min(start + chunk, full)))
    return cuts


class Chunk:
    """Consecutive nodes, and all their in-neighbours where these are asked for.

    Args:
        sweep: Which visits it.
        start: The first node.
        stop: One after the last.
    """

    def __init__(self, sweep: Sweep, start: int, stop: int):
        self.sweep, self.start, self.stop = sweep, start, stop
        self.whole = stop - start == sweep.nodes

    @cached_property
    def block(self) -> Block:
        """Every edge into the chunk, on the device of the rows; targets are the first sources."""
        matrix = self.sweep.matrix
        assert matrix is not None
        if self.whole:
            return Block(matrix).to(self.sweep.device)
        csc, values = matrix.csc, matrix.values
        first, end = int(csc.indptr[self.start]), int(csc.indptr[self.stop])
        targets = torch.arange(self.start, self.stop, device=csc.device)
        local, nodes = relabel(targets, csc.indices[first:end], self.sweep.workspace)
        pattern = CSC(csc.indptr[self.start : self.stop + 1] - first, local, nodes.numel())
        part = Sparse(pattern, None if values is None else values[first:end])
        return Block(part, nodes).to(self.sweep.device)

    def own(self, table: Table) -> Any:
        """(D, F) rows of the chunk's nodes, in the order of the nodes; dense or sparse."""
        rows = table.rows
        if not self.whole and isinstance(rows, Sparse):
            rows = take_rows(rows, torch.arange(self.start, self.stop, device=rows.device))
        elif not self.whole:
            rows = rows[self.start : self.stop]  # pyright: ignore[reportIndexIssue]
        return rows.to(self.sweep.device)

    def gather(self, table: Table) -> Any:
        """(S, F) rows of the block's sources; dense or sparse."""
        rows, ids = table.rows, self.block.node_id
        rows = rows if ids is None else take_rows(rows, ids.to(rows.device))
        return rows.to(self.sweep.device)
