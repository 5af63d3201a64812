"""Geom-GCN's text files (Pei et al. 2020): Actor, with lists of the features that are set."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from graphdyn.data.cards import Card
from graphdyn.data.parts import Parts, reading, whole


def read(card: Card, root: Path) -> Parts:
    """Read ``raw/out1_node_feature_label.txt`` and ``raw/out1_graph_edges.txt``.

    Raises:
        DataError: If a file is missing or corrupt.
    """
    import scipy.sparse as sp

    raw = root / card.folder / "raw"
    with reading(raw / "out1_node_feature_label.txt") as path:
        lines = [line.split("\t") for line in path.read_text().splitlines()[1:] if line]
        node = np.array([line[0] for line in lines], np.int64)
        if not np.array_equal(np.sort(node), np.arange(node.size)):
            raise ValueError("node ids are not 0..N-1")
        lists = [np.array(line[1].split(","), np.int64) for line in lines]
        y = np.empty(node.size, np.int64)
        y[node] = np.array([line[2] for line in lines], np.int64)
        rows = np.repeat(node, [len(one) for one in lists])
        shape = (node.size, int(max(one.max() for one in lists)) + 1)
        x = sp.csr_array((np.ones(rows.size), (rows, np.concatenate(lists))), shape=shape)
        x.sum_duplicates()
        x.data[:] = 1  # a word listed twice still counts once
    with reading(raw / "out1_graph_edges.txt") as path:
        lines = path.read_text().splitlines()[1:]
        edges = np.array([line.split("\t") for line in lines if line], np.int64)
    return Parts(len(y), whole(edges[:, 0], edges[:, 1]), x, y)
