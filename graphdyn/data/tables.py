"""Plain columns of numbers from text, gzipped or not."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from graphdyn.data.parts import reading
from graphdyn.errors import DataError


def read_table(path: Path, dtype: type = np.int64) -> np.ndarray:
    """A table of numbers without header.

    Args:
        path: ``.csv`` or ``.csv.gz``, comma separated.
        dtype: Of every column; empty cells become NaN if it is a float.

    Returns:
        (rows, columns) array.

    Raises:
        DataError: If the file is missing, corrupt, ragged, or holds anything else than numbers.
    """
    import pyarrow as pa
    import pyarrow.csv as csv

    with reading(path), pa.input_stream(str(path), compression="detect") as stream:
        table = csv.read_csv(stream, csv.ReadOptions(autogenerate_column_names=True))
        kind = pa.from_numpy_dtype(np.dtype(dtype))
        columns = [column.cast(kind).to_numpy() for column in table.columns]
        for column in columns:
            if column.dtype != dtype:  # a whole number is missing, so the column became float
                raise DataError(
                    f"raw file {path} has empty cells; delete it and download it again."
                )
        return np.stack(columns, axis=1)


def read_column(path: Path, dtype: type = np.int64) -> np.ndarray:
    """The first column of :func:`read_table`."""
    return np.ascontiguousarray(read_table(path, dtype)[:, 0])
