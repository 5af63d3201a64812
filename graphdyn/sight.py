"""What lies between the layers of a model, seen from outside: hooks while a pass lasts, nothing afterwards.

Shapes: D rows of F features, E edges, H heads.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from graphdyn.batch import Batch
from graphdyn.errors import unknown
from graphdyn.estimate import Invalid
from graphdyn.models.batch_norm import WeightedBatchNorm
from graphdyn.models.dropout import activate
from graphdyn.models.norms import measure, normalise
from graphdyn.models.propagate import target_rows
from graphdyn.models.stack import Stack

ACTIVATIONS = (
    *("relu", "relu_", "relu6", "elu", "elu_", "selu", "selu_", "celu", "celu_", "gelu", "silu"),
    *("mish", "leaky_relu", "leaky_relu_", "prelu", "rrelu", "hardtanh", "hardswish", "softplus"),
    *("tanh", "sigmoid"),
)


class Call(NamedTuple):
    """One call of a layer.

    Attributes:
        module: The layer.
        args: Its arguments; the states that it reads come first.
        kwargs: Those by name.
        output: (D, F), part of the graph that leads to the loss.
    """

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Tensor

    @property
    def reads(self) -> Any:
        """The states that the layer reads: its first argument."""
        return self.args[0] if self.args else next(iter(self.kwargs.values()))

    def again(self, states: Any, **more: Any) -> Any:
        """The layer on other states, everything else as it was."""
        if self.args:
            return self.module(states, *self.args[1:], **{**self.kwargs, **more})
        first = next(iter(self.kwargs))
        return self.module(**{**self.kwargs, first: states, **more})


class Unit(NamedTuple):
    """An activation function at work, without dropout; detached.

    Attributes:
        pre: (D, F) what it reads.
        post: (D, F) what it gives.
    """

    pre: Tensor
    post: Tensor


class Normed(NamedTuple):
    """What a batch norm read; detached.

    Attributes:
        norm: With running statistics.
        x: (D, F).
        weight: (D,) how much each row counts; ``None``: all alike.
    """

    norm: nn.Module
    x: Tensor
    weight: Tensor | None = None


class Attention(NamedTuple):
    """Coefficients of one layer, before dropout.

    Attributes:
        alpha: (E, H); they sum to 1 over the edges of a target.
        target: (E,) row of the target of each edge.
        num_targets: D.
    """

    alpha: Tensor
    target: Tensor
    num_targets: int


class Sight(TorchFunctionMode):
    """As a context: notes what the layers of any model do while it is called.

    Args:
        layers: Modules by name, see :func:`layers_of`. What happens inside one is its own affair.
        norms: Batch norms by name.

    Attributes:
        calls: Of the layers, in the order of the flow. A layer that is called again has a number behind
            its name.
        units: The first activation behind each layer that keeps the shape of its output, by the layer's name.
        normed: What batch norms read, by their names.
    """

    def __init__(self, layers: Mapping[str, nn.Module], norms: Mapping[str, nn.Module]):
        super().__init__()
        self.layers, self.norms = layers, norms
        self.calls: dict[str, Call] = {}
        self.units: dict[str, Unit] = {}
        self.normed: dict[str, Normed] = {}
        self._depth = 0
        self._handles: list[Any] = []

    def __enter__(self) -> Sight:
        for name, module in self.layers.items():
            self._handles += [
                module.register_forward_pre_hook(self._enter, prepend=True),
                module.register_forward_hook(self._leave(name), with_kwargs=True),
            ]
        for name, norm in self.norms.items():
            self._handles.append(norm.register_forward_pre_hook(self._norm(name)))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        super().__exit__(*error)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Torch's protocol: every function that takes tensors passes here."""
        known = self.calls and not self._depth and getattr(func, "__name__", "") in ACTIVATIONS
        pre = args[0].detach().clone() if known and args else None
        out = func(*args, **(kwargs or {}))
        if pre is not None:
            name, call = next(reversed(self.calls.items()))
            if name not in self.units and out.shape == call.output.shape:
                self.units[name] = Unit(pre, out.detach().clone())
        return out

    def _enter(self, module: nn.Module, args: Any) -> None:
        self._depth += 1

    def _leave(self, name: str) -> Any:
        def note(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            self._depth -= 1
            out = output[0] if isinstance(output, tuple) else output
            if self._depth or not isinstance(out, Tensor):
                return
            times = sum(known.split(" ")[0] == name for known in self.calls)
            self.calls[f"{name} {times + 1}" if times else name] = Call(module, args, kwargs, out)

        return note

    def _norm(self, name: str) -> Any:
        def note(norm: nn.Module, args: Any) -> None:
            self.normed[name] = Normed(norm, args[0].detach())

        return note


def layers_of(model: nn.Module, names: Sequence[str] | None = None) -> dict[str, nn.Module]:
    """The modules whose outputs are the states of a model.

    Args:
        model: Any.
        names: Of modules; ``None``: PyG's message-passing layers.

    Returns:
        By name, in the order of definition.

    Raises:
        InputError: If a name is not known.
        Invalid: If none is given and there is no message passing.
    """
    own = dict(model.named_modules())
    if names is not None:
        for name in names:
            if name not in own:
                raise unknown("module", name, own)
        return {name: own[name] for name in names}
    from torch_geometric.nn import MessagePassing

    found: dict[str, nn.Module] = {n: m for n, m in own.items() if isinstance(m, MessagePassing)}
    if not found:
        raise Invalid(
            f"{type(model).__name__} has no message-passing layers of PyG; name its layers with layers=."
        )
    return found


def batch_norms(model: nn.Module) -> dict[str, nn.Module]:
    """Batch norms that keep running statistics, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.BatchNorm1d) and module.running_mean is not None
    }


@contextmanager
def calls_of_stack(model: nn.Module) -> Iterator[dict[str, Call]]:
    """Inside, calls of the convs of a :class:`graphdyn.models.Stack` are noted as ``layer 1`` and so on."""
    found: dict[str, Call] = {}

    def note(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            found[name] = Call(module, args, {}, output[-1])

        return hook

    own = {layer_name(end): conv for end, conv in _convs(model) if conv.hops == 1}
    handles = [conv.register_forward_hook(note(name)) for name, conv in own.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def layer_name(hop: int) -> str:
    """The name of the state that a hop, counted from 1, has written."""
    return f"layer {hop}"


def _convs(model: Any) -> list[tuple[int, Any]]:
    """Convs of a stack that take hops, each with the number of hops done after it."""
    model = getattr(model, "_orig_mod", model)  # what torch.compile was given
    if not isinstance(model, Stack):
        return []
    convs: list[Any] = [*model.convs]
    return [(end, c) for end, c in zip(accumulate(c.hops for c in convs), convs) if c.hops]


@torch.no_grad()
def units_of_stack(
    model: Any, batch: Batch, hidden: Sequence[Tensor]
) -> tuple[dict[str, Unit], dict[str, Normed]]:
    """Activations and batch norms behind the layers of a stack; nothing is dropped.

    Args:
        model: As it was called; others than :class:`graphdyn.models.Stack` show none.
        batch: What it read.
        hidden: What its hops wrote.

    Returns:
        Both by the name of the layer before.
    """
    units: dict[str, Unit] = {}
    normed: dict[str, Normed] = {}
    convs = _convs(model)
    model = getattr(model, "_orig_mod", model)
    for end, conv in convs:
        layer = [*model.convs].index(conv)
        if layer + 1 == len(model.convs) and model.head is None:
            continue  # logits
        block, name = batch.block(end - 1), layer_name(end)
        z, weight = hidden[end - 1].detach(), target_rows(block, None).weight
        inside = z.shape[0] if block.halo is None else block.halo.num_inside
        near = None if weight is None else weight[:inside]
        norm = model.norm_of(layer + 1)
        if isinstance(norm, nn.BatchNorm1d) and norm.running_mean is not None:
            heard = near if isinstance(norm, WeightedBatchNorm) else None
            normed[name] = Normed(norm, z[:inside], heard)
        if model.options.activation != "none":
            pre = z
            if norm is not None:
                moments = measure(norm, z[:inside], near)
                pre = normalise(norm, z, weight, moments)
            units[name] = Unit(pre, activate(pre, model.options.activation))
    return units, normed


@torch.no_grad()
def attention_of(call: Call) -> Attention | None:
    """Coefficients of a layer that attends, computed once more; ``None`` where it offers none.

    Layers of this package have a method ``coefficients``, PyG's an argument ``return_attention_weights``.
    """
    module: Any = call.module
    if hasattr(module, "coefficients"):
        hop = call.args[1][0]
        csc = hop.block.adjacency.csc
        return Attention(module.coefficients(call.reads, hop), csc.dst, csc.num_dst)
    if "return_attention_weights" not in inspect.signature(module.forward).parameters:
        return None
    mode, module.training = module.training, False  # coefficients before their dropout
    try:
        _, (index, alpha) = call.again(call.reads, return_attention_weights=True)
    finally:
        module.training = mode
    if not isinstance(index, Tensor) or index.layout != torch.strided:
        return None
    return Attention(alpha, index[1], call.output.shape[0])
