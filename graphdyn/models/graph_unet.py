"""Graph U-Net (Gao & Ji 2019, "Graph U-Nets", ICML, arXiv 1905.05178): pool, convolve, unpool, with skips.

For the whole graph alone: a node is kept if its score is among the best of all nodes, so a batch of some of them
would be pooled to another graph. Shapes: N nodes, H the hidden width, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import Module, ModuleList, Parameter

from graphdyn.batch import Batch
from graphdyn.errors import InputError, unknown
from graphdyn.graph import Features, Propagation
from graphdyn.keys import Key
from graphdyn.models.alone import Mixture, identity_block
from graphdyn.models.conv import Slot
from graphdyn.models.dropout import drop_features, drop_states, edge_site
from graphdyn.models.gcn import GCNConv
from graphdyn.models.graph_pool import LOOP, Level, best, kept, sizes
from graphdyn.models.options import Options
from graphdyn.models.output import Output
from graphdyn.models.parameters import uniform
from graphdyn.models.propagate import Hop

GATES = {"sigmoid": torch.sigmoid, "tanh": torch.tanh}


class GPool(Module):
    """Scores ``y = X p / |p|``; the k best rows go on, each multiplied by gate(y).

    Without the gate p would have no gradient. The paper and the authors' code take the sigmoid, PyG tanh.

    Args:
        width: H.
        gate: ``sigmoid`` or ``tanh``.
        key: Of the initial p.
    """

    def __init__(self, width: int, gate: str, key: Key):
        super().__init__()
        self.gate = GATES[gate]
        self.p = uniform(width, bound=width**-0.5, key=key)

    def forward(self, h: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """(n, H) -> (k, H), and the (k,) rows that were kept."""
        score = h @ (self.p / self.p.norm()).to(h.dtype)
        keep = best(score, k)
        return h[keep] * self.gate(score[keep]).unsqueeze(1), keep


class GraphUNet(Module):
    """A convolution, d times gPool and convolution, d times unpool, skip and convolution, one for the classes.

    Every convolution is GCN's with ``D^-1/2 (A + 2I) D^-1/2`` of its level. Unpooling puts rows back to where
    they were, 0 elsewhere; the skip adds the state that was pooled. Coarse graphs join what two steps joined, see
    :meth:`graphdyn.models.graph_pool.Level.pooled`; on graphs with hubs they are dense.

    The paper (transductive, from memory): d = 4, ``pool="2000,1000,500,200"``, no activation, dropout of 0.92 of the
    features and 0.2 of the matrix, weight decay 1e-3. Here loops are never dropped.

    Args:
        num_features: F.
        num_classes: C.
        pool: What each level keeps: shares, rounded up, or numbers of nodes, joined by commas; the last
            serves all levels after it.
        gate: See :class:`GPool`.
        final: A convolution of its own for the classes, as in the paper; otherwise the last one of the
            decoder gives them, as in PyG's ``GraphUNet``.
        **options: See :class:`graphdyn.models.Options`; ``layers`` is d, ``activation`` is ``none`` by default.
            Norms, other skips, order ``pre`` and linear heads are not defined.

    Raises:
        InputError: If an option is out of range or not defined.
    """

    propagation = Propagation("none", self_loops=True, loop_weight=LOOP)
    defaults: ClassVar[dict[str, Any]] = {"activation": "none"}

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        pool: str | float | Sequence[float] = 0.5,
        gate: Literal["sigmoid", "tanh"] = "sigmoid",
        final: bool = True,
        **options: Any,
    ):
        super().__init__()
        self.options = o = Options(**(self.defaults | options))
        _check(o, gate)
        self.sizes, self.final = sizes(pool, o.layers), final
        inner = [o.hidden] * (2 * o.layers + final)
        widths = [num_features, *inner, num_classes]
        key = Key(o.seed).fold("init")
        self.convs = ModuleList(
            GCNConv(
                Slot(*pair, layer, layer == len(inner), key.fold("conv", layer)),
                bias=o.bias,
                edge_dropout=o.edge_dropout,
            )
            for layer, pair in enumerate(pairwise(widths))
        )
        self.pools = ModuleList(GPool(o.hidden, gate, key.fold("pool", k)) for k in range(o.layers))

    @property
    def num_hops(self) -> int:
        """Convolutions on the graph itself: the first, the last of the decoder, and the final one."""
        return 2 + self.final

    def forward(self, batch: Batch, *, hidden: bool = True) -> Output:
        """Logits of all nodes; the hidden states are the outputs of the convolutions on the graph itself.

        Args:
            batch: Of the whole graph.
            hidden: Return the hidden states.

        Raises:
            InputError: If the batch is of a part of the graph.
        """
        ground = _ground(batch)
        key = batch.drop_key if self.training else None
        h: Any = drop_features(batch.x, self.options.input_dropout, key, None)
        level, depth, states = ground, self.options.layers, []
        below: list[
            tuple[Tensor, Level, Tensor]
        ] = []  # what is pooled: its state, graph, and rows kept
        for index in range(len(self.convs)):
            if 0 < index <= depth:
                k = kept(self.sizes[index - 1], level.num_nodes)
                pooled, keep = self.pools[index - 1](h, k)
                below.append((h, level, keep))
                h, level = pooled, level.pooled(keep)
            elif depth < index <= 2 * depth:
                skip, level, keep = below.pop()
                h = skip.index_add(0, keep, h.to(skip.dtype))
            hop = Hop(level.block, edge_site(key, self.options.edge_dropout, index))
            z = self.convs[index](h, [hop], None)[0]
            if hidden and level is ground:
                states.append(z)
            h = self._after(z, index, key, level.ids)
        return Output(h, tuple(states))

    def alone(
        self, x: Features, ids: Tensor | None, key: Key | None, mixture: Mixture | None = None
    ) -> Tensor:
        """See :meth:`graphdyn.models.Stack.alone`: nothing is pooled, skips remain, and no row is gated."""
        h: Any = mixture(x) if mixture is not None and mixture.layer == 0 else x
        h = drop_features(h, self.options.input_dropout, key, ids)
        hop, depth = Hop(identity_block(x.shape[0], x.device)), self.options.layers
        below: list[Tensor] = []
        for index in range(len(self.convs)):
            if mixture is not None and 0 < index == mixture.layer:
                h, below = mixture(h), [mixture(state) for state in below]
            if depth < index <= 2 * depth:
                h = below.pop() + h
            h = self._after(self.convs[index](h, [hop], None)[0], index, key, ids)
            if index < depth:
                below.append(h)
        return h

    def _after(self, z: Tensor, index: int, key: Key | None, ids: Tensor | None) -> Tensor:
        """What follows a convolution: activation and dropout, and nothing after the last."""
        if index == len(self.convs) - 1:
            return z
        o = self.options
        return drop_states(z, o.dropout, o.activation, key, index + 1, ids)

    @property
    def num_states(self) -> int:
        """See :attr:`graphdyn.models.Stack.num_states`."""
        return len(self.convs)

    def recalls(self, hop: int) -> tuple[int, ...]:
        """See :meth:`graphdyn.models.Stack.recalls`: the output of the hop before."""
        return (hop - 1,)

    def parameter_groups(self) -> dict[str, list[Parameter]]:
        """See :meth:`graphdyn.models.Stack.parameter_groups`; ``hidden`` has the scores' weights too."""
        first, *hidden, out = ([*conv.parameters()] for conv in self.convs)
        inner = [p for layer in hidden for p in layer] + [*self.pools.parameters()]
        return {"first": first, "hidden": inner, "norm": [], "out": out}


def _ground(batch: Batch) -> Level:
    """The level that is the graph itself."""
    block = batch.blocks[0]
    whole = len(batch.blocks) == 1 and block.node_id is None and block.num_src == block.num_dst
    if not whole or block.border is not None:
        raise InputError(
            "graph-unet pools the whole graph, and this batch is a part of it; use the sampler 'full'."
        )
    return Level(block.adjacency, None, block.num_src)


def _check(options: Options, gate: str) -> None:
    """Refuse what the architecture does not define."""
    if gate not in GATES:
        raise unknown("gate", gate, GATES)
    for name, only in (("norm", "none"), ("skip", "none"), ("order", "post")):
        if getattr(options, name) != only:
            raise InputError(
                f"{name} is {getattr(options, name)}, which graph-unet does not define; its skips are its own. "
                f"Use {name}={only}."
            )
    if options.linear_head:
        raise InputError("graph-unet ends in a convolution; use head=conv, or leave it open.")
