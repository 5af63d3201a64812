"""The options that all architectures share, checked together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from graphdyn.errors import InputError, unknown
from graphdyn.models.norms import NORMS

SKIPS = ("none", "identity", "linear", "dense-cat", "dense-max", "initial")
ORDERS = ("post", "pre")
ACTIVATIONS = ("relu", "elu", "none")
HEADS = ("auto", "conv", "linear")


@dataclass(frozen=True)
class Options:
    """How layers are stacked; see :class:`graphdyn.models.stack.Stack` for the equations.

    Attributes:
        hidden: Width of hidden states.
        layers: Number of message-passing layers (linear layers for MLP, SGC and APPNP, levels of pooling for
            GraphUNet).
        norm: ``none | batch | weighted-batch | layer | graph | pair``; weighted-batch is a batch norm whose
            sampled rows stand for the whole graph.
        skip: ``none | identity | linear | dense-cat | dense-max | initial``.
        order: ``post`` (conv, norm, activation, dropout) or ``pre`` (norm, activation, dropout,
        conv). activation: ``relu | elu | none``; ``none`` makes the linear GNN.
        dropout: Probability of 0 for an entry of a hidden state.
        input_dropout: The same for the features.
        edge_dropout: The same for an edge (sum-type layers) or attention coefficient.
        head: ``conv``: the last layer maps to the classes; ``linear``: a linear map follows the
            last layer; ``auto``: ``linear`` where order or skip need it (pre, dense-*), else
            ``conv``.
        bias: Learn additive biases.
        skip_alpha: Share of the initial state under ``skip="initial"``.
        seed: Of the initial parameters.
    """

    hidden: int = 64
    layers: int = 2
    norm: Literal["none", "batch", "weighted-batch", "layer", "graph", "pair"] = "none"
    skip: Literal["none", "identity", "linear", "dense-cat", "dense-max", "initial"] = "none"
    order: Literal["post", "pre"] = "post"
    activation: Literal["relu", "elu", "none"] = "relu"
    dropout: float = 0.0
    input_dropout: float = 0.0
    edge_dropout: float = 0.0
    head: Literal["auto", "conv", "linear"] = "auto"
    bias: bool = True
    skip_alpha: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what no model can be built from."""
        for name, known in (
            ("norm", tuple(NORMS)),
            ("skip", SKIPS),
            ("order", ORDERS),
            ("activation", ACTIVATIONS),
            ("head", HEADS),
        ):
            if getattr(self, name) not in known:
                raise unknown(name, str(getattr(self, name)), known)
        for name in ("hidden", "layers"):
            positive(name, getattr(self, name))
        for name in ("dropout", "input_dropout", "edge_dropout", "skip_alpha"):
            probability(name, getattr(self, name))
        if self.dense and self.head == "conv":
            raise InputError(
                f"skip='{self.skip}' reads the outputs of all layers, so it cannot end in a conv; "
                "use head='linear' (or 'auto')."
            )

    @property
    def pre(self) -> bool:
        """Whether norm and activation come before the conv."""
        return self.order == "pre"

    @property
    def dense(self) -> bool:
        """Whether the head reads every layer (jumping knowledge)."""
        return self.skip.startswith("dense")

    @property
    def linear_head(self) -> bool:
        """Whether a linear map follows the last layer."""
        return self.head == "linear" or (self.head == "auto" and (self.pre or self.dense))


def positive(name: str, value: int) -> None:
    """Raise :class:`InputError` unless the value is an integer of at least 1."""
    if not isinstance(value, int) or value < 1:
        raise InputError(f"{name} is {value}; expected an integer of at least 1.")


def probability(name: str, value: float) -> None:
    """Raise :class:`InputError` unless the value lies in [0, 1)."""
    if not 0.0 <= value < 1.0:
        raise InputError(f"{name} is {value}; expected a number in [0, 1).")
