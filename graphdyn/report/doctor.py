"""What ``graphdyn doctor`` prints: enough to answer most questions of a bug report."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import torch

from graphdyn.data import available, cache_folder, data_root, names
from graphdyn.kernels.backend import ops
from graphdyn.machine import versions


def print_doctor(root: Path | None) -> None:
    """Versions, threads, devices, kernels, folders, data at hand."""
    for fact, value in _facts(root):
        print(f"{fact:16} {value}")


def _facts(root: Path | None) -> Iterator[tuple[str, str]]:
    yield from versions().items()
    yield "cores", f"{os.cpu_count()}, torch uses {torch.get_num_threads()} thread(s)"
    yield "cuda", _cuda()
    yield "kernels", f"CPU: {ops(torch.device('cpu')).__name__}, elsewhere: torch"
    folder = data_root(root)
    yield "data root", f"{folder}{'' if folder.is_dir() else ' (does not exist yet)'}"
    yield "cache", f"{cache_folder()}{'' if _writable(cache_folder()) else ' (not writable)'}"
    here = [name for name in names() if available(name, root)]
    yield "data", f"{len(here)} of {len(names())} sets at hand: {', '.join(here)}"


def _cuda() -> str:
    if not torch.cuda.is_available():
        return "no device"
    found = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return ", ".join(found)


def _writable(folder: Path) -> bool:
    """Whether the folder, or the nearest one above it that exists, can be written."""
    while not folder.exists():
        folder = folder.parent
    return os.access(folder, os.W_OK)
