"""isolated: whatever is computed inside, training finds everything as it was."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from graphdyn.keys import Key


@contextmanager
def isolated(model: nn.Module, key: Key) -> Iterator[None]:
    """Inside, gradients may be taken and models called; outside, nothing of it is seen.

    Kept and given back: buffers (statistics of batch norms, counters), ``.training`` of every module, ``.grad``
    (the objects themselves) and ``requires_grad`` of every parameter, and the global generators of Python,
    NumPy and torch, which inside are seeded by the key. Parameters must not be written.

    Args:
        model: What is called.
        key: Of the randomness inside.
    """
    buffers = [(m, {**m._buffers}) for m in model.modules()]
    modes = [(m, m.training) for m in model.modules()]
    grads = [(p, p.grad, p.requires_grad) for p in model.parameters()]
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    for module, own in buffers:  # copies go in, so that the model's own are not even written
        module._buffers.update({n: None if b is None else b.clone() for n, b in own.items()})
    try:
        with seeded(device, key), torch.enable_grad():
            yield
    finally:
        for module, own in buffers:
            module._buffers.update(own)
        for module, mode in modes:
            module.training = mode
        for parameter, grad, wanted in grads:
            parameter.grad = grad
            parameter.requires_grad_(wanted)


@contextmanager
def seeded(device: torch.device, key: Key) -> Iterator[None]:
    """Inside, the global generators of Python, NumPy and torch are seeded by a key; outside, as they were."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        word = key.bits
        torch.random.default_generator.manual_seed(word >> 1)
        if devices:
            torch.cuda.manual_seed(word >> 1)
        random.seed(word)
        np.random.seed(word & 0xFFFFFFFF)  # noqa: NPY002 a user's model may draw from it
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
