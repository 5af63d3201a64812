"""GraphSAGE's Reddit (Hamilton et al. 2017) as DGL ships it: ``*_data.npz`` and ``*_graph.npz``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from graphdyn.data.cards import Card
from graphdyn.data.parts import Parts, reading_npz, whole


def read(card: Card, root: Path) -> Parts:
    """Read ``raw/<prefix>_data.npz`` and ``raw/<prefix>_graph.npz``.

    Raises:
        DataError: If a file is missing or corrupt.
    """
    with reading_npz(_path(card, root, "graph")) as file:
        src, dst = file["row"], file["col"]
    with reading_npz(_path(card, root, "data")) as file:
        x, y = file["feature"], file["label"]
    return Parts(len(y), whole(src, dst), x, y)


def split_ids(card: Card, root: Path, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The split in ``node_types``: 1 train, 2 validation, 3 test."""
    with reading_npz(_path(card, root, "data")) as file:
        kind = file["node_types"]
        return np.flatnonzero(kind == 1), np.flatnonzero(kind == 2), np.flatnonzero(kind == 3)


def _path(card: Card, root: Path, part: str) -> Path:
    return root / card.folder / "raw" / f"{card.reader['prefix']}_{part}.npz"
