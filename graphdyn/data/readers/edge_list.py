"""Edge lists of your own: a folder with a few ``.csv`` or ``.npy`` files, or a single ``.npz``.

Names: ``edges`` of shape (E, 2), source and target, or (E, 3) with a weight, or ``edge_index`` of
shape (2, E) as in PyG; ``features``, ``labels``, ``weight``; and node ids ``train``, ``valid``,
``test``. CSV files hold numbers, comma separated, no header; ``.gz`` is read too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from graphdyn.data.cards import Card
from graphdyn.data.parts import Parts, reading, reading_npz, whole
from graphdyn.data.tables import read_table
from graphdyn.errors import DataError


def read(card: Card, root: Path) -> Parts:
    """Read what is there; only the edges are required.

    Raises:
        DataError: If the edges are missing or a file is corrupt.
    """
    arrays = _arrays(card, root, ("edges", "edge_index", "weight", "features", "labels"))
    if "edge_index" in arrays:
        arrays["edges"] = arrays["edge_index"].T
    if "edges" not in arrays:
        raise DataError(f"{root / card.folder} holds no edges.csv, edges.npy or edges in a .npz.")
    src, dst, weight = _columns(arrays["edges"])
    x, y = arrays.get("features"), arrays.get("labels")
    sizes = {len(a) for a in (x, y) if a is not None} or {int(max(src.max(), dst.max())) + 1}
    if len(sizes) > 1:
        raise DataError(
            f"{card.name}: features and labels have {sorted(sizes)} rows; make them equal."
        )
    n = card.counts.nodes or sizes.pop()
    if y is not None and card.task == "multiclass":
        y = y.reshape(len(y))
    return Parts(n, whole(src, dst), x, y, arrays.get("weight", weight))


def split_ids(card: Card, root: Path, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The node ids in ``train``, ``valid`` and ``test``."""
    arrays = _arrays(card, root, ("train", "valid", "test"))
    for part in ("train", "valid", "test"):
        if part not in arrays:
            raise DataError(f"{root / card.folder} holds no {part}.csv or {part}.npy.")
    train, valid, test = (
        arrays[part].reshape(-1).astype(np.int64) for part in ("train", "valid", "test")
    )
    return train, valid, test


def _arrays(card: Card, root: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    folder = root / card.folder
    if "file" in card.reader:
        path = folder / card.reader["file"]
        with reading_npz(path) as file:
            return {name: file[name] for name in names if name in file.files}
    found = ((name, _array(folder, name)) for name in names)
    return {name: array for name, array in found if array is not None}


def _array(folder: Path, name: str) -> np.ndarray | None:
    binary = folder / f"{name}.npy"
    if binary.exists():
        with reading(binary):
            return np.load(binary, allow_pickle=False)
    for path in (folder / f"{name}.csv", folder / f"{name}.csv.gz"):
        if path.exists():
            return read_table(path, np.float64)
    return None


def _columns(edges: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    if edges.ndim != 2 or edges.shape[1] not in (2, 3) or not len(edges):
        raise DataError(f"edges have shape {edges.shape}; expected (E, 2), or (E, 3) with weights.")
    ends = edges[:, :2].astype(np.int64)
    if (ends != edges[:, :2]).any():
        raise DataError("edges hold node ids that are not whole numbers.")
    weight = edges[:, 2].astype(np.float32) if edges.shape[1] == 3 else None
    return ends[:, 0], ends[:, 1], weight
