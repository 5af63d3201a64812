"""OGB node property prediction (Hu et al. 2020), read from its raw folder: ``csv.gz``, or ``npz``.

Options of the card: ``format = "npz"`` for the form of papers100M; ``label_file`` with
``label_bounds`` makes classes of a node value by its bounds (arxiv-year); ``guesses`` names a file
of ranked class guesses that become one-hot features, one block of columns a rank.
"""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from graphdyn.data.cards import Card
from graphdyn.data.parts import EdgeChunks, Parts, Rows, reading, reading_npz, whole
from graphdyn.data.tables import read_column, read_table
from graphdyn.errors import DataError

PIECE = 1 << 24  # bytes of an array that are read at once


def read(card: Card, root: Path) -> Parts:
    """Read features, labels and edges.

    Raises:
        DataError: If a file is missing or corrupt.
    """
    raw = root / card.folder / "raw"
    if card.reader.get("form") == "npz":
        return _read_npz(raw)
    n = int(read_column(raw / "num-node-list.csv.gz")[0])
    edges = read_table(raw / "edge.csv.gz")
    attrs = {}
    if (raw / "node_year.csv.gz").exists():
        attrs["year"] = _sized(read_column(raw / "node_year.csv.gz"), n, raw / "node_year.csv.gz")
    return Parts(n, whole(edges[:, 0], edges[:, 1]), None, _labels(card, raw, n), attrs=attrs)


def read_features(card: Card, root: Path):
    """Node features alone: (N, F) array or sparse matrix, or :class:`Rows` in the npz form."""
    raw = root / card.folder / "raw"
    if card.reader.get("form") == "npz":
        return _feature_rows(raw / "data.npz")
    n = int(read_column(raw / "num-node-list.csv.gz")[0])
    if "guesses" in card.reader:
        options = card.reader
        return _ranked(
            root / card.folder / options["guesses"], n, options["ranks"], options["among"]
        )
    path = raw / "node-feat.csv.gz"
    return _sized(read_table(path, np.float32), n, path)


def _sized(array: np.ndarray, n: int, path: Path) -> np.ndarray:
    if len(array) != n:
        raise DataError(f"raw file {path} has {len(array):,} rows for {n:,} nodes; download again.")
    return array


def _labels(card: Card, raw: Path, n: int) -> np.ndarray:
    path = raw / card.reader.get("label_file", "node-label.csv.gz")
    if "label_bounds" in card.reader:
        return np.digitize(_sized(read_column(path), n, path), card.reader["label_bounds"])
    return _sized(read_table(path, np.float32), n, path)


def _ranked(path: Path, n: int, ranks: int, among: int):
    """One-hot of each node's guess at each rank; a line may hold fewer guesses, or none."""
    import scipy.sparse as sp

    with reading(path), path.open(newline="") as file:
        lists = [[int(cell) for cell in line] for line in csv.reader(file)]
        if len(lists) != n or max(map(len, lists)) > ranks:
            raise ValueError(f"{len(lists)} lines of up to {ranks} guesses for {n} nodes")
        node = np.repeat(np.arange(n), [len(one) for one in lists])
        rank = np.concatenate([np.arange(len(one)) for one in lists])
        guess = np.array([c for one in lists for c in one], np.int64)
        if guess.min() < 0 or guess.max() >= among:
            raise ValueError(f"a guess outside 0..{among - 1}")
    ones = np.ones(node.size, np.float32)
    return sp.csr_array((ones, (node, rank * among + guess)), shape=(n, ranks * among))


def _read_npz(raw: Path) -> Parts:
    with reading_npz(raw / "node-label.npz") as file:
        y = file["node_label"].reshape(-1)
    path = raw / "data.npz"
    with reading_npz(path) as file:
        n = int(file["num_nodes_list"][0])
        attrs = {"year": file["node_year"].reshape(-1)} if "node_year" in file.files else {}
    return Parts(n, _streamed_edges(path), None, _sized(y, n, raw / "node-label.npz"), attrs=attrs)


def _feature_rows(path: Path) -> Rows:
    with reading(path), _Member(path, "node_feat") as member:
        shape, dtype = member.shape, member.dtype
    per_piece = max(1, PIECE // (shape[1] * dtype.itemsize))

    def chunks() -> Iterator[np.ndarray]:
        with reading(path), _Member(path, "node_feat") as member:
            for start in range(0, shape[0], per_piece):
                rows = min(per_piece, shape[0] - start)
                yield member.take(rows * shape[1]).reshape(rows, shape[1])

    return Rows((shape[0], shape[1]), dtype, chunks)


def _streamed_edges(path: Path) -> EdgeChunks:
    """Pieces of a (2, E) array inside an npz, without ever holding it."""

    def chunks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        with (
            reading(path),
            _Member(path, "edge_index") as sources,
            _Member(path, "edge_index") as targets,
        ):
            count = sources.shape[1]
            targets.skip(count)
            step = PIECE // sources.dtype.itemsize
            for start in range(0, count, step):
                size = min(step, count - start)
                yield sources.take(size), targets.take(size)

    return chunks


class _Member:
    """One array of an npz file, read from front to back."""

    def __init__(self, path: Path, name: str):
        self.bundle = zipfile.ZipFile(path)
        self.file = self.bundle.open(f"{name}.npy")
        version = np.lib.format.read_magic(self.file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        self.shape, fortran, self.dtype = read[version](self.file)
        if fortran or self.dtype.hasobject or len(self.shape) != 2:
            raise ValueError(f"{name} is not a plain matrix")

    def __enter__(self) -> _Member:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.bundle.close()

    def take(self, count: int) -> np.ndarray:
        """The next numbers."""
        size = count * self.dtype.itemsize
        pieces, left = [], size
        while left and (piece := self.file.read(left)):
            pieces.append(piece)
            left -= len(piece)
        if left:
            raise ValueError(f"{left:,} bytes are missing at the end")
        return np.frombuffer(b"".join(pieces), self.dtype)

    def skip(self, count: int) -> None:
        """Pass over numbers (the file may be compressed, so they are read)."""
        step = PIECE // self.dtype.itemsize
        for start in range(0, count, step):
            self.take(min(step, count - start))
