"""Facebook100 networks (Traud, Mucha, Porter 2012) as in LINKX (Lim et al. 2021): one MATLAB file.

Seven columns of metadata a student. Gender is the label (0 is unknown and becomes -1); every other
column becomes one-hot over the values that occur, the unknown value 0 included, as in PyG.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from graphdyn.data.cards import Card
from graphdyn.data.parts import Parts, reading, whole

GENDER = 1


def read(card: Card, root: Path) -> Parts:
    """Read ``raw/data.mat`` of the card's folder.

    Raises:
        DataError: If the file is missing or corrupt.
    """
    from scipy.io import loadmat

    path = root / card.folder / "raw" / "data.mat"
    with reading(path):
        content = loadmat(path)
        adjacency = content["A"].tocoo()
        table = content["local_info"].astype(np.int64)
        if adjacency.shape != (len(table),) * 2:
            raise ValueError("adjacency and metadata differ in size")
    x = _one_hot(np.delete(table, GENDER, axis=1))
    return Parts(len(table), whole(adjacency.row, adjacency.col), x, table[:, GENDER] - 1)


def _one_hot(table: np.ndarray):
    import scipy.sparse as sp

    blocks = []
    for column in table.T:
        values, code = np.unique(column, return_inverse=True)
        rows = np.arange(code.size)
        ones = np.ones(code.size, np.float32)
        blocks.append(sp.csr_array((ones, (rows, code)), shape=(code.size, values.size)))
    return sp.hstack(blocks, format="csr")
