"""GraphSAINT (Zeng et al. 2020): adj_full.npz, feats.npy, class_map.json, role.json."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from graphdyn.data.cards import Card
from graphdyn.data.parts import Parts, reading, reading_npz, whole
from graphdyn.errors import DataError


def read(card: Card, root: Path) -> Parts:
    """Read features, labels and edges.

    Raises:
        DataError: If a file is missing or corrupt.
    """
    raw = root / card.folder / "raw"
    with reading_npz(raw / "adj_full.npz") as file:
        indptr, dst = file["indptr"].astype(np.int64), file["indices"]
        n = indptr.size - 1
        if (np.diff(indptr) < 0).any() or indptr[-1] != dst.size:
            raise ValueError("indptr does not fit indices")
    src = np.repeat(np.arange(n), np.diff(indptr))
    with reading(raw / "feats.npy") as path:
        x = np.load(path, allow_pickle=False)
    return Parts(n, whole(src, dst), x, _labels(raw / "class_map.json", n))


def split_ids(card: Card, root: Path, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The split of ``role.json``."""
    with reading(root / card.folder / "raw" / "role.json") as path:
        role = json.loads(path.read_text())
        train, valid, test = (np.array(role[part], np.int64) for part in ("tr", "va", "te"))
        return train, valid, test


def _labels(path: Path, n: int) -> np.ndarray:
    """One class a node (-1 where none is given), or a row of 0/1 a node."""
    with reading(path):
        entries = json.loads(path.read_text())
        nodes = np.array([int(node) for node in entries], np.int64)
        values = np.array(list(entries.values()), np.float32)
        if nodes.size and (nodes.min() < 0 or nodes.max() >= n):
            raise DataError(f"raw file {path} labels a node outside 0..{n - 1}.")
        y = np.full((n, *values.shape[1:]), np.nan, np.float32)
        y[nodes] = values
        return y
