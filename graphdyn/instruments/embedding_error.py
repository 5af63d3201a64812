"""EmbeddingError: how far a batch's states lie from those of the whole graph, and which layer made the error.

Valid for states by node, at equal weights, under the dropout masks of the batch and in the model's present mode.
Sampled neighbours, remembered rows and the statistics of norms over rows all have a part in it. Cong et al. 2020,
"Minimal Variance Sampling with Provable Guarantees for Fast Training of Graph Neural Networks", lemma 3.2, bound the
error of gradients by the errors that layers add. Shapes: D rows of F features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from graphdyn.estimate import Estimate, Invalid, Reading
from graphdyn.instruments.instrument import Instrument, Need
from graphdyn.instruments.looks import graph_of, place_of
from graphdyn.problem import Trace
from graphdyn.schedule import Auto, Schedule
from graphdyn.snapshot import Snapshot
from graphdyn.statistics import quotient


class EmbeddingError(Instrument):
    """By layer, of outputs before norm and activation.

    ============  ===============================================================================================
    reading       what it is
    ============  ===============================================================================================
    ``error``     E |H_batch - H|^2 / E |H|^2 over the rows that a batch computes and some target of it hears;
                  H the same rows of the whole graph
    ``cause``     the same of the layer alone: the layer on the batch's edges, given the whole graph's states
                  where the batch computes its own (what it remembers stays), against the whole graph's; over
                  E |H|^2 too. 0 where all neighbours are there
    ============  ===============================================================================================

    Expectations are over batches; standard errors are those of independent batches (jackknife). Prediction:
    under a full-graph sampler, 0. Errors of a layer below reach the layers above, so ``error`` is not the sum of
    causes. A layer that cannot be called again by itself (one whose output a memory composes, one of several
    hops, one with pairs of states or with features that a sampler has propagated) has no cause. Masks inside a layer of PyG (dropout of attention) are not
    keyed by edge, and count as error.

    Args:
        m: Batches; by default what the level says.
        every: See :class:`Instrument`.
    """

    needs = Need.PROBLEM
    every: Schedule = Auto(steps=200)
    levels = ({"m": 8}, {"m": 4}, {"m": 2})
    cost = 8.0
    full = 8.0

    def setup(self, s: Snapshot) -> None:
        """See :meth:`Instrument.setup`."""
        graph_of(s)

    def measure(self, s: Snapshot) -> Reading:
        """See the class.

        Raises:
            Invalid: If the whole graph does not fit, or the model does not show its layers.
        """
        num_nodes = graph_of(s).num_nodes
        sums: dict[tuple[str, str], list[Tensor]] = {}
        for i in range(self.option("m")):
            pair = (s.trace("batch", i), s.trace("whole", i))
            with s.isolated(), torch.no_grad():
                for name in pair[0].states:
                    for what, parts in _of_layer(*pair, name, num_nodes).items():
                        sums.setdefault((what, name), []).append(parts)
        if not sums:
            raise Invalid("the model does not show its layers.")
        found: dict[str | tuple[str, str], Estimate] = {}
        for key, parts in sums.items():
            tops, bottoms = torch.stack(parts).unbind(1)
            if (bottoms > 0).all():
                found[key] = quotient(tops, bottoms)
        return found


def _of_layer(batch: Trace, whole: Trace, name: str, num_nodes: int) -> dict[str, Tensor]:
    """(2,) squared error and squared size of a layer's rows in one batch."""
    nodes, place = batch.nodes[name], place_of(whole.nodes[name], num_nodes)
    at = _rows(nodes, place, num_nodes)
    h, exact = batch.cut(name, batch.states[name]).detach(), whole.states[name].detach()[at]
    size = exact.double().square().sum()
    found = {"error": torch.stack([_square(h, exact), size])}
    alone = _alone(batch, whole, name, num_nodes)
    if alone is not None:
        truth = whole.calls[name].output.detach()[at]
        found["cause"] = torch.stack([_square(batch.cut(name, alone), truth), size])
    return found


def _alone(batch: Trace, whole: Trace, name: str, num_nodes: int) -> Tensor | None:
    """What a layer writes on the batch's edges, given the whole graph's states."""
    if name not in batch.calls or name not in whole.calls:
        return None
    call, states = batch.calls[name], whole.calls[name].reads
    if name not in batch.sources:
        return None
    if not isinstance(call.reads, Tensor) or not isinstance(states, Tensor):
        return call.output.detach()  # features that are sparse: exact as they are
    place = place_of(whole.sources[name], num_nodes)
    given = states.detach()[_rows(batch.sources[name], place, num_nodes)]
    out = call.again(torch.cat([given, call.reads.detach()[given.shape[0] :]]))
    return out[-1] if isinstance(out, tuple) else out


def _rows(nodes: Tensor | None, place: Tensor | None, num_nodes: int) -> Tensor:
    """Rows of the whole graph's states that belong to nodes."""
    if nodes is None:
        return torch.arange(num_nodes) if place is None else place
    return nodes if place is None else place[nodes]


def _square(a: Tensor, b: Tensor) -> Tensor:
    return (a.double() - b.double()).square().sum()
