"""The trunk that all deep architectures share: norm, activation, dropout, skip, depth, head.

Shapes: layer l reads S_l rows and writes D_l of them, a prefix; F features, C classes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from functools import reduce
from itertools import accumulate, pairwise
from typing import Any, ClassVar, cast

import torch
from torch import Tensor
from torch.nn import BatchNorm1d, Module, ModuleList, Parameter

from graphdyn.batch import Batch
from graphdyn.graph import Features, Propagation
from graphdyn.keys import Key
from graphdyn.models.alone import Mixture, identity_block, untracked
from graphdyn.models.batch_norm import (
    fuses,
    fuses_constants,
    normalise_relu,
    renormalise_relu,
)
from graphdyn.models.conv import Conv, Slot
from graphdyn.models.dropout import activate, drop_features, drop_states, edge_site, hidden_site
from graphdyn.models.halo import attributed, compensate, entrust
from graphdyn.models.norms import build_norm, normalise
from graphdyn.models.options import Options
from graphdyn.models.output import Output
from graphdyn.models.parameters import Linear
from graphdyn.models.past import Past
from graphdyn.models.propagate import Hop, Rows, blend, dense, prefix, source_ids, target_rows


class Stack(Module):
    r"""Layers on top of each other; the class every deep model derives from.

    With ``act(x) = dropout(sigma(norm(x)))`` and h the state, one layer is

    =============  ======================================  =========================================
    skip           order = post                            order = pre
    =============  ======================================  =========================================
    none           ``h <- act(conv(h))``                   ``h <- conv(act(h))``
    identity       ``h <- act(conv(h)) + h``               ``h <- conv(act(h)) + h``
    linear         ``h <- act(conv(h) + W h)``             ``h <- conv(act(h)) + W act(h)``
    initial        ``h <- act((1-a) conv(h) + a h0)``      ``h <- (1-a) conv(act(h)) + a h0``
    dense-*        as none; the head reads every layer     as none; the head reads every ``act(h)``
    =============  ======================================  =========================================

    * *post* starts at ``h = dropout(x)``. *initial* puts ``h0 = sigma(W x + b)`` in front and
      starts at ``dropout(h0)``. *pre* starts at ``h = h0 = W x + b`` and ends with one more
      ``act``.
    * *identity* (He et al. 2016; *pre* is res+ of DeeperGCN, Li et al. 2020) skips where widths
      agree and leaves out the layers that change the width. *linear* is the residual of Luo, Shi &
      Wu 2024 ("Classic GNNs are strong baselines"); W has no bias. *initial* is Gasteiger et al.
      2019 and Chen et al. 2020, a = ``skip_alpha``. *dense* is jumping knowledge (Xu et al. 2018):
      the linear head reads the concatenation, or the maximum, of all layers.
    * ``head="conv"``: the last of ``layers`` convs maps to the classes, and nothing follows it: no
      norm, no activation, no skip (Kipf & Welling 2017). ``head="linear"``: ``layers`` hidden
      convs, then a linear map.
    * Dropout is keyed by (step, site, layer, node): a node has the same mask in every batch of a
      step.
    * ``norm="weighted-batch"`` weighs a state's rows by 1 / ``node_prob`` of the block that they are
      the targets of. Input rows are no block's targets and count alike: that is the first norm of
      *pre*.

    :meth:`run` is made of the steps :meth:`encode`, :meth:`before`, the conv, :meth:`mix`,
    :meth:`after` and :meth:`answer`. All but the conv look at rows alone, so that
    :mod:`graphdyn.layerwise` can take the same steps over a part of the rows at a time.

    Subclasses give the conv and declare ``propagation``. Blocks may be one (the full graph, used by
    every layer) or one a hop; targets must be a prefix of sources, so that a skip reads ``h[:D]``.

    Args:
        num_features: F.
        num_classes: C.
        options: See :class:`Options`.
        make: From a :class:`Slot` to a conv.
        encode: Put the input projection in front whatever the options are.
    """

    propagation: Propagation = Propagation("sym", self_loops=True)
    defaults: ClassVar[dict[str, Any]] = {}  # where the architecture's differ from those of Options

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        options: Options,
        make: Callable[[Slot], Module],
        *,
        encode: bool = False,
    ):
        super().__init__()
        self.options = o = options
        key = Key(o.seed).fold("init")
        self.encoder = None
        self.initial = encode or o.skip == "initial"  # whether a layer reads h0
        width = num_features
        if encode or o.pre or o.skip == "initial":
            self.encoder = Linear(width, o.hidden, bias=o.bias, key=key.fold("encoder"))
            width = o.hidden
        convs = o.layers + o.linear_head  # the class conv, if any, is one of o.layers
        widths = [width] + [o.hidden] * (convs - 1) + ([] if o.linear_head else [num_classes])
        slots = [
            Slot(*pair, layer, not o.linear_head and layer == o.layers - 1, key.fold("conv", layer))
            for layer, pair in enumerate(pairwise(widths))
        ]
        self.convs = ModuleList(make(slot) for slot in slots)
        self.plain = [slot.last for slot in slots]
        self.norms = ModuleList(build_norm(o.norm, n) for n in _norm_widths(slots, o))
        self.skips = ModuleList(
            Linear(s.inputs, s.outputs, bias=False, key=key.fold("skip", s.layer))
            for s in slots
            if o.skip == "linear" and not s.last
        )
        self.head = None
        if o.linear_head:
            width = o.hidden * (o.layers if o.skip == "dense-cat" else 1)
            self.head = Linear(width, num_classes, bias=o.bias, key=key.fold("head"))

    @property
    def num_hops(self) -> int:
        """How many blocks a batch must bring (or one that serves all)."""
        return sum(conv.hops for conv in self._convs())

    def forward(self, batch: Batch, *, hidden: bool = True) -> Output:
        """Logits and hidden states of a batch; the same code for the full graph and for blocks.

        Args:
            batch: What to read.
            hidden: Return the hidden states; without them, what no derivative needs is freed as soon
                as the next layer has read it.

        Returns:
            See :class:`Output`.
        """
        model = attributed(self, batch)
        output = model.run(batch.x, batch, source_ids(batch), hidden=hidden)
        return output._replace(logits=entrust(output.logits, batch))

    def run(
        self,
        x: Features,
        batch: Batch,
        ids: Tensor | None,
        *,
        weight: Tensor | None = None,
        hidden: bool,
    ) -> Output:
        """As :meth:`forward`, on other rows.

        Args:
            x: (N, F) features of these rows.
            batch: Gives blocks and key.
            ids: (N,) global ids of the rows; ``None`` when they are all nodes in order.
            weight: (N,) weights of these rows in a weighted batch norm; ``None``: all equal.
            hidden: As in :meth:`forward`.

        Returns:
            As :meth:`forward`.
        """
        key = batch.drop_key if self.training else None
        rows = Rows(key, ids, weight)
        h, h0 = self.encode(x, rows)
        past = Past(self, h, key) if any(b.border is not None for b in batch.blocks) else None
        kept: list[Tensor] = []
        read: list[Tensor] = []
        hop = 0
        for layer, conv in enumerate(self._convs()):
            hops = self._hops(batch, hop, conv.hops, key)
            hop += conv.hops
            source = self.before(h, layer, rows)
            if past is not None and hops:
                source = past.attach(source, hops[0].block, layer)
            *inner, z = conv(source, hops, h0)
            z = self.mix(z, layer, h, source, h0)
            z = hops[-1].block.shift(z) if hops else z
            z = compensate(z, hops[-1].block.halo) if hops else z
            if past is not None:
                past.note(z, layer + 1, target_rows(hops[-1].block, key).weight if hops else None)
            if hops:
                rows = target_rows(hops[-1].block, key)
                kept += [*inner, z] if hidden else []
            h = self.after(z, layer, h, rows)
            if self.options.dense and layer:
                read.append(source)
            del inner, source, z  # else they would live until the next conv is done
        return Output(self.answer([*read, self.before(h, len(self.convs), rows)]), tuple(kept))

    def alone(
        self, x: Features, ids: Tensor | None, key: Key | None, mixture: Mixture | None = None
    ) -> Tensor:
        """Logits of rows each of which is its own only neighbour, with weight 1: a network without a graph.

        Weights, norms, skips and dropout of rows are those of the model; no edge is dropped. So a layer is
        ``W h + b`` for GCN, attention being 1 for GAT; ``(W_l + W_r) h + b`` for SAGE. Batch norms take
        the statistics of these rows, and running ones stay as they are.

        Args:
            x: (N, F) features.
            ids: (N,) global ids of the rows, of dropout masks; ``None``: all nodes in order.
            key: Of these masks; ``None``: nothing is dropped.
            mixture: Mixes the state that a layer reads (in order *post* after activation and dropout, in
                order *pre* before them), and whatever else a later layer reads of the rows.

        Returns:
            (N, C).
        """
        if mixture is not None and mixture.layer == 0:
            x = mixture(x)
        rows, hop = Rows(key, ids), Hop(identity_block(x.shape[0], x.device))
        read: list[Tensor] = []
        with untracked(self.norms):
            h, h0 = self.encode(x, rows)
            for layer, conv in enumerate(self._convs()):
                h, h0, read = _mixed(mixture, layer, h, h0, read)
                source = self.before(h, layer, rows)
                z = self.mix(conv(source, [hop] * conv.hops, h0)[-1], layer, h, source, h0)
                h = self.after(z, layer, h, rows)
                if self.options.dense and layer:
                    read.append(source)
            h, h0, read = _mixed(mixture, len(self.convs), h, h0, read)
            return self.answer([*read, self.before(h, len(self.convs), rows)])

    @property
    def num_states(self) -> int:
        """How many states layers and head read one after the other, features included."""
        return len(self.convs) + (self.head is not None)

    def encode(self, x: Features, rows: Rows) -> tuple[Any, Tensor | None]:
        """First state (features, or a projection), and h0 where a layer reads it."""
        h = drop_features(x, self.options.input_dropout, rows.key, rows.ids)
        if self.encoder is None:
            return h, None
        h0 = self.encoder(h)
        if not self.options.pre:
            h0 = activate(h0, self.options.activation)
            h = drop_states(h0, self.options.dropout, "none", rows.key, 0, rows.ids)
        else:
            h = h0
        return h, h0 if self.initial else None

    def before(self, h: Any, layer: int, rows: Rows) -> Any:
        """What a layer (or, after the last, the head) reads of a state: ``act(h)`` in order *pre*."""
        headless = layer == len(self.convs) and self.head is None
        return self._activate(h, layer, rows) if self.options.pre and not headless else h

    def after(self, z: Tensor, layer: int, h: Features, rows: Rows) -> Tensor:
        """The next state: ``act(z)``, with the skip from h, in order *post*."""
        if self.options.pre or self.plain[layer]:
            return z
        return self._add(self._activate(z, layer + 1, rows), h)

    def answer(self, read: list[Tensor]) -> Tensor:
        """Logits from what the head reads: every layer under *dense* skips, else the last alone."""
        if self.head is None:
            return read[-1]
        return self.head(self._jump(read) if self.options.dense else read[-1])

    def recalls(self, hop: int) -> tuple[int, ...]:
        """Hops whose outputs (``Output.hidden``) make up the state that a hop reads.

        What a memory keeps of a node, to stand in for the node among the sources of that hop: the
        output of the hop before; where an identity skip adds every state below, all of these too.

        Args:
            hop: From 1 to ``num_hops`` - 1.

        Returns:
            Ascending.
        """
        ends = [*accumulate(conv.hops for conv in self._convs())]
        layer = bisect_right(ends, hop)
        inner = hop - (ends[layer - 1] if layer else 0)
        adds = self.options.skip == "identity" and not self.options.pre
        if inner or not adds:
            return (hop - 1,)
        return tuple(end - 1 for end in ends[:layer])

    def norm_of(self, layer: int) -> Module | None:
        """The norm between conv ``layer - 1`` and what reads it; ``None`` where none stands."""
        index = layer if self.options.pre else layer - 1
        return self.norms[index] if 0 <= index < len(self.norms) else None

    def _hops(self, batch: Batch, start: int, count: int, key: Key | None) -> list[Hop]:
        return [
            Hop(batch.block(k), edge_site(key, self.options.edge_dropout, k))
            for k in range(start, start + count)
        ]

    def _activate(self, h: Tensor, layer: int, rows: Rows) -> Tensor:
        """dropout(sigma(norm(h))), as read by the given layer."""
        o = self.options
        norm = self.norms[layer if o.pre else layer - 1]
        given = rows.moments
        if o.activation == "relu" and (fuses if given is None else fuses_constants)(norm, h):
            norm = cast(BatchNorm1d, norm)
            drop = {} if rows.key is None or o.dropout == 0 else hidden_site(rows, layer, o.dropout)
            if given is None:
                return normalise_relu(norm, h, rows.weight, **drop)
            given = given.like(h)
            return renormalise_relu(norm, h, given.mean, given.var, out=rows.out, **drop)
        h = normalise(norm, h, rows.weight, rows.moments)
        return drop_states(h, o.dropout, o.activation, rows.key, layer, rows.ids)

    def mix(self, z: Tensor, layer: int, h: Features, source: Features, h0: Any) -> Tensor:
        """Add the skip that stands between a conv and what reads it."""
        o = self.options
        if self.plain[layer]:
            return z
        if o.skip == "linear":
            return z + self.skips[layer](prefix(source, z.shape[0]))
        if o.skip == "initial":
            return blend(z, h0, o.skip_alpha)
        return self._add(z, h) if o.pre else z

    def _add(self, z: Tensor, h: Features) -> Tensor:
        """Add h to z where the options ask for it and the widths agree."""
        if self.options.skip != "identity" or h.shape[1] != z.shape[1]:
            return z
        return z + dense(prefix(h, z.shape[0]))

    def _jump(self, read: list[Tensor]) -> Tensor:
        cut = [prefix(h, read[-1].shape[0]) for h in read]
        return torch.cat(cut, 1) if self.options.skip == "dense-cat" else reduce(torch.maximum, cut)

    def _convs(self) -> Iterable[Conv]:
        return cast(Iterable[Conv], self.convs)

    def parameter_groups(self) -> dict[str, list[Parameter]]:
        """Parameters by role, each in exactly one group, for optimisers with several weight decays.

        Returns:
            ``first`` (input projection, or the first layer with its skip), ``hidden`` (layers
            between), ``norm``, ``out`` (the linear head, or the last conv). Kipf & Welling (2017)
            decay ``first`` alone; GCNII decays ``hidden`` with one rate, ``first`` and ``out``
            with another.
        """
        layers = [[*conv.parameters()] for conv in self.convs]
        for layer, skip in zip(layers, self.skips):
            layer += skip.parameters()
        if self.encoder is not None:
            layers.insert(0, [*self.encoder.parameters()])
        if self.head is not None:
            layers.append([*self.head.parameters()])
        first, *rest = layers
        out = rest.pop() if rest else []
        norm = [*self.norms.parameters()]
        return {
            "first": first,
            "hidden": [p for layer in rest for p in layer],
            "norm": norm,
            "out": out,
        }


def _mixed(
    mixture: Mixture | None, layer: int, h: Any, h0: Tensor | None, read: list[Tensor]
) -> tuple[Any, Tensor | None, list[Tensor]]:
    """State, initial state and states of earlier layers as this layer and later ones read them."""
    if mixture is None or layer == 0 or layer != mixture.layer:
        return h, h0, read
    return mixture(h), None if h0 is None else mixture(h0), [mixture(r) for r in read]


def _norm_widths(slots: list[Slot], options: Options) -> list[int]:
    """One norm after each hidden conv (post), or before each conv and a linear head (pre)."""
    if not options.pre:
        return [slot.outputs for slot in slots if not slot.last]
    return [slot.inputs for slot in slots] + [options.hidden] * options.linear_head
