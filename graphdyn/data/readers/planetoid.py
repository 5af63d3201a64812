"""Planetoid (Yang, Cohen, Salakhutdinov 2016): eight files ``ind.<name>.*``, seven of them pickles.

Nodes are in the order of ``allx`` and then of the test ids. CiteSeer lacks some test ids: these
nodes are isolated, have no features, and class 0, as in PyG.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from graphdyn.data.cards import Card
from graphdyn.data.parts import Parts, reading, whole
from graphdyn.data.unpickle import load_pickle
from graphdyn.errors import DataError


def read(card: Card, root: Path) -> Parts:
    """Read features, labels and edges.

    Raises:
        DataError: If a file is missing, corrupt or unsafe.
    """
    test = test_ids(card, root)
    rows = np.sort(test) - test.min()
    size = int(test.max() - test.min()) + 1
    x = _stack(_sparse(card, root, "allx"), _sparse(card, root, "tx"), rows, size)
    y = _stack(_sparse(card, root, "ally"), _sparse(card, root, "ty"), rows, size)
    order = np.arange(x.shape[0])
    if test.max() >= order.size or y.shape[0] != x.shape[0]:
        raise DataError(f"{_path(card, root, 'allx')} does not fit the test ids; download again.")
    order[test] = np.sort(test)
    src, dst = _edges(card, root)
    labels = y.toarray()[order].argmax(axis=1)
    return Parts(x.shape[0], whole(src, dst), x.tocsr()[order], labels)


def test_ids(card: Card, root: Path) -> np.ndarray:
    """Ids of the test nodes, in the order of the file."""
    path = _path(card, root, "test.index")
    with reading(path):
        ids = np.array(path.read_text().split(), dtype=np.int64)
        if ids.size == 0 or ids.min() < 0:
            raise DataError(f"raw file {path} holds no valid test ids; download it again.")
        return ids


def split_ids(card: Card, root: Path, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The public split: train on the rows of ``y``, validate on the next 500, test as listed."""
    num_train = _sparse(card, root, "y").shape[0]
    return (
        np.arange(num_train),
        np.arange(num_train, num_train + 500),
        np.sort(test_ids(card, root)),
    )


def _path(card: Card, root: Path, part: str) -> Path:
    return root / card.folder / "raw" / f"ind.{card.reader['prefix']}.{part}"


def _sparse(card: Card, root: Path, part: str) -> Any:
    import scipy.sparse as sp

    path = _path(card, root, part)
    value = load_pickle(path)
    with reading(path):
        matrix = sp.csr_array(value)
        matrix.check_format(full_check=True)
        return matrix


def _stack(head, tail, rows: np.ndarray, size: int) -> Any:
    """``head`` over ``tail``, whose rows are spread to ``size``; the gaps are empty rows."""
    import scipy.sparse as sp

    if tail.shape[0] != rows.size or rows[-1] >= size:
        raise DataError(f"{tail.shape[0]} test rows for {rows.size} test ids; download again.")
    spread = tail.tocoo()
    tail = sp.csr_array((spread.data, (rows[spread.row], spread.col)), shape=(size, tail.shape[1]))
    return sp.vstack([head, tail], format="csr")


def _edges(card: Card, root: Path) -> tuple[np.ndarray, np.ndarray]:
    path = _path(card, root, "graph")
    lists = load_pickle(path)
    with reading(path):
        count = [len(v) for v in lists.values()]
        src = np.repeat(np.fromiter(lists, dtype=np.int64), count)
        dst = np.fromiter((v for vs in lists.values() for v in vs), np.int64, count=sum(count))
        return src, dst
