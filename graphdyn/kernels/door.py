"""What a public kernel does before it runs: check, agree on a type, stay out of torch.compile."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from graphdyn.errors import InputError

F = TypeVar("F", bound=Callable)


def eager(function: F) -> F:
    """Keep a public kernel out of ``torch.compile``: the graph breaks there, the numbers stay.

    ``torch.compiler.disable`` would import torch's compiler, over a second, before anyone asks for
    it; its lazy form, which torch's own optimisers use, costs nothing until that is loaded.
    """
    hidden: Any = torch._disable_dynamo(function)

    @functools.wraps(function)
    def call(*args, **kwargs):
        return (hidden if "torch._dynamo" in sys.modules else function)(*args, **kwargs)

    return cast(F, call)


def same_type(name: str, first: Tensor, *others: Tensor | None) -> tuple[torch.dtype, list[Any]]:
    """The type to return (that of ``first``), and all tensors in the type to compute in."""
    given, tensors = first.dtype, (first, *others)
    for tensor in tensors:
        if tensor is not None and not tensor.is_floating_point():
            raise InputError(f"{name} was given {tensor.dtype}; expected floating point.")
    compute = given if given.itemsize >= 4 else torch.float32
    return given, [t if t is None or t.dtype == compute else t.to(compute) for t in tensors]


def expect(name: str, what: str, tensor: Tensor, shape: tuple[int | None, ...]) -> None:
    """Raise :class:`InputError` unless the shape fits; ``None`` fits any size."""
    if tensor.dim() == len(shape) and all(w in (None, n) for w, n in zip(shape, tensor.shape)):
        return
    wanted = ", ".join("*" if n is None else str(n) for n in shape)
    raise InputError(f"{name}: {what} has shape {tuple(tensor.shape)}; expected ({wanted}).")
