"""PPI (Zitnik, Leskovec 2017) as in GraphSAGE: 24 tissues in three files each of graphs.

All tissues become one graph of 24 components: training, validation and test graphs in this order,
so that a full-graph step on the training nodes sees training graphs only.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from graphdyn.data.cards import Card
from graphdyn.data.parts import Parts, reading, whole

PARTS = ("train", "valid", "test")


def read(card: Card, root: Path) -> Parts:
    """Read ``raw/<part>_{graph.json,feats.npy,labels.npy,graph_id.npy}``.

    Raises:
        DataError: If a file is missing or corrupt.
    """
    raw = root / card.folder / "raw"
    xs, ys, tissues, edges, offset = [], [], [], [], 0
    for part in PARTS:
        xs.append(_array(raw / f"{part}_feats.npy"))
        ys.append(_array(raw / f"{part}_labels.npy"))
        tissues.append(_array(raw / f"{part}_graph_id.npy"))
        edges.append(_edges(raw / f"{part}_graph.json") + offset)
        offset += len(xs[-1])
    src, dst = np.concatenate(edges, axis=1)
    tissue = np.concatenate(tissues).astype(np.int64)
    x, y = np.concatenate(xs), np.concatenate(ys)
    return Parts(offset, whole(src, dst), x, y, attrs={"tissue": tissue})


def split_ids(card: Card, root: Path, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whole tissues: 20 train, 2 validate, 2 test."""
    raw = root / card.folder / "raw"
    sizes = [len(_array(raw / f"{part}_graph_id.npy")) for part in PARTS]
    a, b, c = np.cumsum(sizes)
    return np.arange(a), np.arange(a, b), np.arange(b, c)


def _array(path: Path) -> np.ndarray:
    with reading(path):
        return np.load(path, allow_pickle=False)


def _edges(path: Path) -> np.ndarray:
    """(2, E) from node-link JSON; an undirected link stands for both directions."""
    with reading(path):
        content = json.loads(path.read_text())
        pairs = np.array([(e["source"], e["target"]) for e in content["links"]], np.int64)
        edges = pairs.reshape(-1, 2).T
        return edges if content.get("directed") else np.concatenate([edges, edges[::-1]], axis=1)
