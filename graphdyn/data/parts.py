"""What a reader returns: arrays as they lie in the raw files, before they become a Graph.

Shapes: N nodes, E edges as stored, F features, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from graphdyn.errors import DataError, GraphdynError

EdgeChunks = Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]


@dataclass(frozen=True)
class Rows:
    """A matrix too large to hold: read in pieces of consecutive rows.

    Attributes:
        shape: (N, F).
        dtype: Of the values.
        chunks: Starts the reading; yields the pieces in order.
    """

    shape: tuple[int, int]
    dtype: np.dtype
    chunks: Callable[[], Iterator[np.ndarray]]


@dataclass(frozen=True)
class Parts:
    """Raw arrays of one data set.

    Attributes:
        num_nodes: N.
        edges: Starts the reading of (sources, targets) in pieces; may be called again.
        x: (N, F) array, SciPy sparse matrix, :class:`Rows`, or ``None``.
        y: (N,) classes with -1 or NaN for unlabelled, (N, C) 0/1, or ``None``.
        edge_weight: (E,) in the order of the edges, or ``None``.
        attrs: Other per-node arrays by name.
    """

    num_nodes: int
    edges: EdgeChunks
    x: Any = None
    y: np.ndarray | None = None
    edge_weight: np.ndarray | None = None
    attrs: dict[str, np.ndarray] = field(default_factory=dict)


def whole(src: np.ndarray, dst: np.ndarray) -> EdgeChunks:
    """An edge list that is in memory, as a single piece."""
    return lambda: iter([(src, dst)])


@contextmanager
def reading_npz(path: Path):
    """An open ``.npz`` without pickles, under :func:`reading`."""
    # The file is opened here: np.load leaves it open if it turns out to be no zip.
    with reading(path), path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
        yield file


@contextmanager
def reading(path: Path):
    """Turn whatever goes wrong while a raw file is read into one sentence that names the file."""
    try:
        yield path
    except GraphdynError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"raw file {path} is missing; `graphdyn data get` downloads it.") from error
    except MemoryError:
        raise
    except Exception as error:  # parsers of corrupt input raise nearly anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"raw file {path} is corrupt or truncated ({reason.rstrip('.')}); "
            "delete it and download it again."
        ) from error
