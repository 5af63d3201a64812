"""Optimiser state as named tensors and JSON, so that checkpoints need no pickle."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split an optimiser's state into tensors and plain values.

    Returns:
        Tensors named ``"<parameter index>/<name>"``, and the JSON part with groups and scalars.
    """
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, dict[str, Any]] = {}
    for index, values in state["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{index}/{name}"] = value
            else:
                scalars.setdefault(str(index), {})[name] = value
    return tensors, {"groups": state["param_groups"], "scalars": scalars}


def unpack_optimizer(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], plain: dict[str, Any]
) -> None:
    """Put back what :func:`pack_optimizer` took out."""
    state: dict[int, dict[str, Any]] = {}
    for index, values in plain["scalars"].items():
        state.setdefault(int(index), {}).update(values)
    for name, value in tensors.items():
        index, key = name.split("/", 1)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": plain["groups"]})


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under ``prefix/name``."""
    return {f"{prefix}/{name}": value for name, value in tensors.items()}


def below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under ``prefix/``, without it."""
    start = len(prefix) + 1
    return {k[start:]: v for k, v in tensors.items() if k.startswith(f"{prefix}/")}


def pack(tree: Any) -> tuple[dict[str, Tensor], Any]:
    """Split nested dictionaries and lists into tensors and JSON.

    Returns:
        Copies of tensors, for files cannot hold two that share memory, by their place, and the rest with ``{"tensor": place}`` where each of them stood.
    """
    tensors: dict[str, Tensor] = {}
    return tensors, _packed(tree, "", tensors)


def unpack(tensors: dict[str, Tensor], plain: Any) -> Any:
    """What :func:`pack` has split; tuples come back as lists."""
    if isinstance(plain, dict):
        if plain.keys() == {"tensor"}:
            return tensors[plain["tensor"]]
        return {name: unpack(tensors, value) for name, value in plain.items()}
    return [unpack(tensors, value) for value in plain] if isinstance(plain, list) else plain


def _packed(tree: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(tree, Tensor):
        while place in tensors:  # names may hold dots
            place += "_"
        tensors[place] = tree.detach().clone()
        return {"tensor": place}
    if isinstance(tree, dict):
        return {str(n): _packed(v, f"{place}.{n}", tensors) for n, v in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_packed(v, f"{place}.{i}", tensors) for i, v in enumerate(tree)]
    return tree
