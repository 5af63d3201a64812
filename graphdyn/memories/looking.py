"""looking: a memory may be asked what it would do in a step, and afterwards knows nothing of it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from graphdyn.memories.memory import Memories, Memory


@contextmanager
def looking(memory: Memory) -> Iterator[None]:
    """Inside, ``pull``, ``watch`` and ``correct`` may be called; outside, nothing of it is seen.

    Tables are copied on the way in, which takes as much memory again, and given back in place.
    """
    parts = _parts(memory)
    objects = [_fields(item) for item in parts]
    kept = [(t, t.clone()) for t in _tensors(memory, parts)]
    try:
        yield
    finally:
        for item, fields in objects:
            vars(item).clear()
            vars(item).update(fields)
        with torch.no_grad():
            for tensor, values in kept:
                tensor.copy_(values)


def _fields(item: Any) -> tuple[Any, dict[str, Any]]:
    """What an object holds; plain containers as copies, for they may be written in place."""
    plain = (list, dict, set)
    held = {k: copy.copy(v) if isinstance(v, plain) else v for k, v in vars(item).items()}
    return item, held


def _tensors(memory: Memory, parts: list[Any]) -> list[Tensor]:
    """Every tensor that may be written in place, once."""
    held = [v for item in parts for v in vars(item).values()]
    inner = [w for v in held if isinstance(v, dict) for w in v.values()]
    inner += [w for v in held if isinstance(v, (list, tuple)) for w in v]
    every = [*memory.state().values(), *held, *inner]
    own = {id(t): t for t in every if isinstance(t, Tensor) and not t.requires_grad}
    return [*own.values()]


def _parts(memory: Memory) -> list[Any]:
    """The memory, its members, and the helpers of this package that they keep (tables, counts)."""
    members = memory.members if isinstance(memory, Memories) else (memory,)
    return [*members, *(v for m in members for v in vars(m).values() if _is_helper(v))]


def _is_helper(value: Any) -> bool:
    ours = type(value).__module__.startswith("graphdyn.memories.")
    return ours and hasattr(value, "__dict__")
