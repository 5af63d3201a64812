"""Sparse ``.npz`` of Shchur et al. (2018) and Bojchevski & Günnemann (2018).

Adjacency and attributes as CSR arrays. As in PyG, attributes become 0 or 1 where the card says
``binarise``; the published counts are those after adding reverse edges and dropping loops.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from graphdyn.data.cards import Card
from graphdyn.data.parts import Parts, reading_npz, whole


def read(card: Card, root: Path) -> Parts:
    """Read ``raw/<file>`` of the card's folder.

    Raises:
        DataError: If the file is missing or corrupt.
    """
    path = root / card.folder / "raw" / card.reader["file"]
    with reading_npz(path) as file:
        adjacency = _matrix(file, "adj").tocoo()
        x = _matrix(file, "attr")
        y = file["labels"]
        if y.shape != (x.shape[0],) or adjacency.shape != (x.shape[0],) * 2:
            raise ValueError("adjacency, attributes and labels differ in size")
    if card.reader.get("binarise"):
        x.data = (x.data > 0).astype(np.float32)
    return Parts(x.shape[0], whole(adjacency.row, adjacency.col), x, y)


def _matrix(file, name: str) -> Any:
    import scipy.sparse as sp

    parts = (file[f"{name}_data"], file[f"{name}_indices"], file[f"{name}_indptr"])
    matrix = sp.csr_array(parts, shape=tuple(file[f"{name}_shape"]))
    matrix.check_format(full_check=True)
    return matrix
