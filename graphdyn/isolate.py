"""isolated: whatever is computed inside, training finds everything as it was."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from graphdyn.keys import Key

PLAIN = (list, dict, set)  # that a forward pass may write in place


@contextmanager
def isolated(model: nn.Module, key: Key) -> Iterator[None]:
    """Inside, gradients may be taken and models called, with no ``.grad`` to begin with; outside, nothing is seen.

    Kept and given back: buffers (statistics of batch norms, counters) and attributes (``.training``, what a
    layer caches) of every module, ``.grad`` (the objects themselves) and ``requires_grad`` of every parameter,
    and the global generators of Python, NumPy and torch, which inside are seeded by the key. Parameters must
    not be written, nor tensors that are attributes.

    Args:
        model: What is called.
        key: Of the randomness inside.
    """
    modules = [(m, {**vars(m)}) for m in model.modules()]
    held = [(v, copy.copy(v)) for _, own in modules for v in own.values() if type(v) in PLAIN]
    grads = [(p, p.grad, p.requires_grad) for p in model.parameters()]
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    for module, _ in modules:  # copies go in, so that the model's own are not even written
        clones = {n: None if b is None else b.clone() for n, b in module._buffers.items()}
        module._buffers.update(clones)
    for parameter, _, _ in grads:  # a backward pass inside must not add to what is there
        parameter.grad = None
    try:
        with seeded(device, key), torch.enable_grad():
            yield
    finally:
        for module, own in modules:
            vars(module).clear()
            vars(module).update(own)
        for value, content in held:
            _refill(value, content)
        for parameter, grad, wanted in grads:
            parameter.grad = grad
            parameter.requires_grad_(wanted)


def _refill(value: Any, content: Any) -> None:
    value.clear()
    (value.extend if isinstance(value, list) else value.update)(content)


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
