"""Plain ``.npz`` of Platonov et al. (2023): node_features, node_labels, edges, rows of masks."""

from __future__ import annotations

from pathlib import Path

from graphdyn.data.cards import Card
from graphdyn.data.parts import Parts, reading_npz, whole


def read(card: Card, root: Path) -> Parts:
    """Read the card's ``file``.

    Raises:
        DataError: If the file is missing or corrupt.
    """
    path = root / card.folder / card.reader["file"]
    with reading_npz(path) as file:
        x, y, edges = file["node_features"], file["node_labels"], file["edges"]
        if edges.ndim != 2 or edges.shape[1] != 2 or len(x) != len(y):
            raise ValueError("features, labels and edges do not fit each other")
    return Parts(len(x), whole(edges[:, 0], edges[:, 1]), x, y)
