"""Parsed graphs kept as memory-mapped ``.npy`` files in the cache folder.

A store is named by what it was built from (raw files, card, options, version of the format), so it
never goes stale; it is built in a temporary folder and renamed, so it is never half there.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import platform
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from graphdyn.data.cards import Card
from graphdyn.data.places import cache_folder
from graphdyn.data.structure import Allocate, Rules

# Without this flag a private mapping larger than memory is refused, as all its pages could be written.
# Python names it from 3.13 on; the number is Linux's on the machines that torch has wheels for.
_LINUX = sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64")
NO_RESERVE: int | None = getattr(mmap, "MAP_NORESERVE", 0x4000 if _LINUX else None)
VERSION = 1  # raise it when the arrays of a store change meaning
Build = Callable[[Allocate, Path], dict[str, np.ndarray]]


def identity(card: Card, rules: Rules, layout: str, paths: list[Path]) -> str:
    """A digest of everything that the arrays depend on.

    Args:
        card: Its reader options count.
        rules: Edge rules in force.
        layout: Features dense, sparse or auto.
        paths: Raw files; their path, size and time of change count.
    """
    files = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(paths)]
    about = [
        VERSION,
        card.name,
        card.format,
        card.folder,
        card.reader,
        asdict(rules),
        layout,
        files,
    ]
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()[:24]


def open_or_build(name: str, digest: str, build: Build) -> dict[str, torch.Tensor] | None:
    """Map a store, building it first if it is not there or damaged.

    Args:
        name: Data set, for the folder's name.
        digest: See :func:`identity`.
        build: Called with an allocator and a scratch folder; returns the arrays.

    Returns:
        Tensors over memory-mapped files, or ``None`` (and one warning) if the cache folder cannot
        be written or is full. Writing into them changes this process's copy only, never the files.
    """
    folder = cache_folder() / "store" / f"{name}-{digest}"
    tensors = _open(folder)
    if tensors is not None:
        return tensors
    try:
        _build(folder, build)
        reason, tensors = "it cannot be mapped", _open(folder)
    except OSError as error:
        reason = error.strerror or str(error)
    if tensors is None:
        warnings.warn(f"no store at {folder} ({reason}); {name} is parsed again.", stacklevel=3)
    return tensors


def _build(folder: Path, build: Build) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{folder.name}.tmp"))
    try:
        scratch = work / "scratch"
        scratch.mkdir()
        for name, array in build(_allocator(work), scratch).items():
            if not isinstance(array, np.memmap):
                _allocator(work)(name, array.shape, array.dtype)[...] = array
        shutil.rmtree(scratch)
        names = sorted(path.name for path in work.glob("*.npy"))
        (work / "manifest.json").write_text(json.dumps(names))
        _publish(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _publish(work: Path, folder: Path) -> None:
    """Rename into place; another process that was first built the same."""
    if folder.exists() and _open(folder) is None:
        shutil.rmtree(folder)
    try:
        work.rename(folder)
    except OSError:
        if not folder.exists():
            raise


def _allocator(folder: Path) -> Allocate:
    """Arrays in files whose blocks exist before they are written: a full disk raises, no SIGBUS."""

    def allocate(name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        path = folder / f"{name}.npy"
        with path.open("wb") as file:
            header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            offset = file.tell()
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            _reserve(file, offset + size)
        return np.memmap(path, dtype, "r+", offset, shape)

    return allocate


def _reserve(file, size: int) -> None:
    file.flush()
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    zeros = bytes(1 << 20)
    for start in range(file.tell(), size, len(zeros)):
        file.write(zeros[: size - start])


def _open(folder: Path) -> dict[str, torch.Tensor] | None:
    """The tensors of a store, or ``None`` if it is absent or a file is missing or too short."""
    try:
        names = json.loads((folder / "manifest.json").read_text())
        return {name.removesuffix(".npy"): map_npy(folder / name) for name in names}
    except (OSError, ValueError):
        return None


def map_npy(path: Path) -> torch.Tensor:
    """An ``.npy`` file as a tensor whose pages are read when they are touched.

    The mapping is private: nothing written to the tensor reaches the file, so torch need not be
    told that it is read-only, and no swap is reserved for it where the system allows.
    """
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"{path} has .npy version {version}")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        offset = file.tell()
        count = int(np.prod(shape))
        if not count:
            return torch.from_numpy(np.empty(shape, dtype))
        view = np.frombuffer(_private_map(file.fileno()), dtype, count, offset)
    return torch.from_numpy(view.reshape(shape))


def _private_map(descriptor: int) -> mmap.mmap:
    if NO_RESERVE is None:
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY)
    flags = mmap.MAP_PRIVATE | NO_RESERVE
    return mmap.mmap(descriptor, 0, flags, mmap.PROT_READ | mmap.PROT_WRITE)
