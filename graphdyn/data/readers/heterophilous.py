"""Plain ``.npz`` of Platonov et al. (2023): node_features, node_labels, edges, and ten rows of masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from graphdyn.data.cards import Card
from graphdyn.data.parts import Parts, reading, whole


def read(card: Card, root: Path) -> Parts:
    """Read the card's ``file``.

    Raises:
        DataError: If the file is missing or corrupt.
    """
    path = root / card.folder / card.reader["file"]
    with reading(path), np.load(path, allow_pickle=False) as file:
        x, y, edges = file["node_features"], file["node_labels"], file["edges"]
        if edges.ndim != 2 or edges.shape[1] != 2 or len(x) != len(y):
            raise ValueError("features, labels and edges do not fit each other")
    return Parts(len(x), whole(edges[:, 0], edges[:, 1]), x, y)
