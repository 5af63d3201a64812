"""Activation and dropout of the trunk: masks of edges, hidden states and input, from the key of a step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from graphdyn.graph import Features
from graphdyn.kernels import dropout, dropout_values, relu_dropout
from graphdyn.kernels.door import eager
from graphdyn.keys import Key
from graphdyn.models.propagate import Rows
from graphdyn.sparse import Sparse


def activate(h: Tensor, name: str) -> Tensor:
    """ReLU, ELU or nothing."""
    if name == "none":
        return h
    return torch.relu(h) if name == "relu" else torch.nn.functional.elu(h)


@eager
def _site(key: Key, name: str, layer: int) -> Key:
    """The key of one dropout mask of the step."""
    return key.fold("dropout", name, layer)


def edge_site(key: Key | None, p: float, hop: int) -> Key | None:
    """The key of the edge dropout of a hop; ``None`` where no edge is dropped."""
    return None if key is None or p == 0 else _site(key, "edge", hop)


@eager
def hidden_site(rows: Rows, layer: int, p: float) -> dict[str, Any]:
    """What draws the dropout mask of a hidden state, for the kernels."""
    assert rows.key is not None
    return {"p": p, "bits": _site(rows.key, "hidden", layer).bits, "ids": rows.ids}


@eager
def drop_states(
    h: Tensor, p: float, activation: str, key: Key | None, layer: int, ids: Tensor | None
) -> Tensor:
    """dropout(activation(h)); with ReLU in one pass over memory."""
    if key is None or p == 0:
        return activate(h, activation)
    bits = _site(key, "hidden", layer).bits
    if activation == "relu":
        return relu_dropout(h, p, bits, ids)
    return dropout(activate(h, activation), p, bits, ids)


@eager
def drop_features(x: Features, p: float, key: Key | None, ids: Tensor | None) -> Features:
    """Dropout of the input, dense or sparse: the same entries die in both forms."""
    if key is None or p == 0:
        return x
    bits = _site(key, "input", 0).bits
    return dropout_values(x, p, bits, ids) if isinstance(x, Sparse) else dropout(x, p, bits, ids)
