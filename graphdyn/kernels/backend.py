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


@cache
def _cpu() -> ModuleType:
    # Numba costs most of a second to import, so the first kernel call pays, not `import graphdyn`.
    if importlib.util.find_spec("numba") is None:
        return torch_ops
    return importlib.import_module("graphdyn.kernels.numba_ops")
