"""Pickles from the internet, read safely: only NumPy and SciPy array types may be built.

A pickle is a program. Every global that it names passes :meth:`ArrayUnpickler.find_class`, which
knows the handful below and refuses the rest.
"""

from __future__ import annotations

import collections
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from graphdyn.data.parts import reading
from graphdyn.errors import DataError


def _dtype(name: Any, align: Any = False, copy: Any = False) -> np.dtype:
    """Old pickles pass 0 and 1 for the flags, which NumPy deprecates."""
    return np.dtype(name, bool(align), bool(copy))


def _reconstruct(subtype: type, shape: tuple, dtype: Any) -> np.ndarray:
    """The empty array whose content NumPy pickles fill in afterwards; always a plain one."""
    return np.ndarray.__new__(np.ndarray, shape, dtype)


def _new_object(cls: type, base: type, state: Any) -> Any:
    """How Python 2 makes a matrix; a class that is no plain object refuses."""
    return object.__new__(cls)


def _encode(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes for Python 2: always as Latin-1."""
    return text.encode("latin1")


def _csr_class() -> type:
    from scipy.sparse import csr_matrix

    return csr_matrix


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "defaultdict"): collections.defaultdict,
    ("__builtin__", "list"): list,
    ("builtins", "list"): list,
    ("__builtin__", "object"): object,
    ("_codecs", "encode"): _encode,
    ("copy_reg", "_reconstructor"): _new_object,
    ("copyreg", "_reconstructor"): _new_object,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
}
_CSR = {("scipy.sparse.csr", "csr_matrix"), ("scipy.sparse._csr", "csr_matrix")}


class ArrayUnpickler(pickle.Unpickler):
    """Builds NumPy arrays, SciPy CSR matrices, lists and dictionaries, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Resolve a global of the pickle, or refuse it."""
        if (module, name) in _CSR:
            return _csr_class()
        if (module, name) not in _ALLOWED:
            raise DataError(
                f"the pickle asks for {module}.{name}; only NumPy and SciPy arrays are read. "
                "Nothing was run; delete the file and download it again."
            )
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        """Refuse references to outside objects."""
        raise DataError("the pickle refers to objects outside itself; refused.")


def load_pickle(path: Path) -> Any:
    """Read a pickle of arrays, written by Python 2 or 3.

    Raises:
        DataError: If it is missing or corrupt, or asks for anything but arrays.
    """
    with reading(path):
        return unpickle(path.read_bytes(), str(path))


def load_object_array(path: Path) -> np.ndarray:
    """Read an ``.npy`` of dtype object (a pickle in disguise) through the same gate."""
    with reading(path), path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        read[version](file)
        return unpickle(file.read(), str(path))


def unpickle(content: bytes, origin: str) -> Any:
    """Read a pickle of arrays from bytes; ``origin`` is for error messages."""
    try:
        return ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
    except DataError as error:
        raise DataError(f"{origin}: {error}") from None
