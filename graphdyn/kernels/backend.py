"""Which back-end runs a kernel: Numba on CPU where it is installed, torch everywhere else."""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from types import ModuleType

import torch

from graphdyn.kernels import torch_ops


def ops(device: torch.device) -> ModuleType:
    """The module whose functions run on the device."""
    return _cpu() if device.type == "cpu" else torch_ops


def compiled(device: torch.device) -> bool:
    """Whether Numba's loops run on the device."""
    return device.type == "cpu" and _numba()


@cache
def _numba() -> bool:
    return importlib.util.find_spec("numba") is not None


@cache
def _cpu() -> ModuleType:
    # Numba costs most of a second to import, so the first kernel call pays, not `import graphdyn`.
    return importlib.import_module("graphdyn.kernels.numba_ops") if _numba() else torch_ops
