"""Exact evaluation layer by layer, a chunk of nodes at a time: when the full graph does not fit.

Every hop reads every edge once: a layer is done for all nodes before the next begins. The layers
are the model's own steps (:class:`graphdyn.models.Stack`), taken over a part of the rows; nothing of
the model is written, and its mode is not asked. Shapes: N nodes, F features.
"""

from __future__ import annotations

import tempfile
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.nn import BatchNorm1d, Module

from graphdyn.errors import InputError, unknown
from graphdyn.graph import Features, Graph
from graphdyn.models import APPNP, Stack
from graphdyn.models.norms import Moments, over_rows
from graphdyn.models.options import positive
from graphdyn.models.propagate import Hop, Rows
from graphdyn.sweep import Chunk, Sweep, Table

Statistics = Literal["running", "population"]


@torch.no_grad()
def predict_layerwise(
    model: Module,
    graph: Graph,
    *,
    chunk: int | None = None,
    statistics: Statistics = "running",
    store: str | Path | None = None,
) -> Tensor:
    """Logits of every node, as the full batch gives them in evaluation mode, in bounded memory.

    Computed where the model's parameters are, a chunk at a time; states of all nodes lie in main
    memory or in files. At the peak there are two of them (N rows of the widest layer each; h0 is a
    third where layers read it, and dense skips keep one a layer), the features, the graph, and one
    chunk: the rows of its in-neighbours with all that a layer makes of them.

    Args:
        model: Any graphdyn model.
        graph: With features; they may be sparse or memory-mapped.
        chunk: Targets at a time, fewer where their degrees are high: a chunk has no more edges than
            ``chunk`` nodes of mean degree, unless one node alone has. ``None``: all at once.
        statistics: Of batch norms: ``"running"``, or ``"population"``, taken anew over all nodes
            under the current weights. Other norms over rows always see all nodes.
        store: Folder for the states, each in a file that is deleted once it has been read.

    Returns:
        (N, C) logits in main memory, in the type of the model.

    Raises:
        InputError: If the model is not made of graphdyn's layers, or an argument cannot be used.
    """
    check_statistics(statistics)
    return _run(model, graph, chunk, store, _Norms(statistics == "population"))


@torch.no_grad()
def population_moments(
    model: Module, graph: Graph, *, chunk: int | None = None, store: str | Path | None = None
) -> dict[Module, Moments]:
    """What each norm over rows reads when all nodes pass, and the norms before it saw them all too.

    Args:
        model: See :func:`predict_layerwise`, likewise the arguments that follow.
        graph: See ``model``.
        chunk: See ``model``.
        store: See ``model``.

    Returns:
        Mean and biased variance of every column, merged over chunks in float64, by norm.

    Raises:
        InputError: As :func:`predict_layerwise`.
    """
    norms = _Norms(population=True)
    _run(model, graph, chunk, store, norms)
    return norms.moments


def check_statistics(name: str) -> None:
    """Raise :class:`InputError` unless it says where a batch norm's statistics come from."""
    if name not in ("running", "population"):
        raise unknown("statistics", name, ("running", "population"))


@dataclass
class _Norms:
    """Which statistics the norms use.

    Attributes:
        population: Whether batch norms look at all nodes too, not at what they have stored.
        moments: What was measured, by norm.
    """

    population: bool
    moments: dict[Module, Moments] = field(default_factory=dict)

    def wait(self, norm: Module | None) -> bool:
        """Whether the norm needs all rows before it can take the first."""
        stored = isinstance(norm, BatchNorm1d) and norm.running_mean is not None
        return over_rows(norm) and (self.population or not stored)

    def note(self, norm: Module | None, table: Table) -> None:
        """Keep what a table's columns were measured to be, for the norm that reads them."""
        if norm is not None and table.moments is not None:
            self.moments[norm] = table.moments

    def rows(self, norm: Module | None) -> Rows:
        """What a step of the trunk must know of rows that this norm reads."""
        if not over_rows(norm):
            return Rows()
        if self.wait(norm):
            return Rows(moments=self.moments[cast(Module, norm)])
        stored = cast(Any, norm)
        return Rows(moments=Moments(0, stored.running_mean, stored.running_var))


def _run(
    model: Any, graph: Graph, chunk: int | None, store: str | Path | None, norms: _Norms
) -> Tensor:
    model = getattr(model, "_orig_mod", model)  # what torch.compile was given
    _check(model, chunk)
    if graph.x is None:
        raise InputError(f"{graph.name} has no features.")
    matrix = graph.adjacency(model.propagation) if model.num_hops else None
    device = next(model.parameters()).device
    run: Any = _appnp if isinstance(model, APPNP) else _stack
    with _folder(store) as folder:
        sweep = Sweep(graph.num_nodes, matrix, chunk=chunk, device=device, folder=folder)
        return cast(Tensor, run(model, graph.x, sweep, norms).rows)


def _check(model: Any, chunk: int | None) -> None:
    if chunk is not None:
        positive("chunk", chunk)
    if not isinstance(model, Stack | APPNP):
        raise InputError(
            f"{type(model).__name__} is not made of layers that can be taken one at a time; "
            "evaluate it on a full batch."
        )
    for conv in cast(Any, model.convs) if isinstance(model, Stack) else ():
        if conv.hops > 1 and not hasattr(conv, "step"):
            raise InputError(
                f"{type(conv).__name__} takes {conv.hops} hops and gives no way to take them one "
                "at a time; add a method step(h, k, hop, h0)."
            )


def _folder(store: str | Path | None) -> AbstractContextManager[str | None]:
    """A folder of its own under ``store`` that vanishes at the end; nothing without one."""
    if store is None:
        return nullcontext()
    try:
        Path(store).mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(dir=store, ignore_cleanup_errors=True)
    except OSError as error:
        raise InputError(f"cannot keep states in {store}: {error.strerror}.") from None


def _stack(model: Stack, x: Features, sweep: Sweep, norms: _Norms) -> Table:
    """A whole trunk: the mirror of :meth:`Stack.run`, with tables for states."""
    h, h0 = Table(x), None
    if model.encoder is not None:
        first, norm = h, model.norm_of(0)
        h = sweep.fill(lambda c: model.encode(c.own(first), Rows())[0], measure=norms.wait(norm))
        norms.note(norm, h)
        h0 = h if model.initial else None  # without dropout both are the same
    read: list[Table] = []
    for layer in range(len(model.convs)):
        if model.options.dense and layer:
            read.append(h)
        z = _layer(model, layer, h, h0, sweep, norms)
        if not any(h is kept for kept in (h0, *read)):
            h.free()
        h = z
    read.append(h)
    layers = range(len(model.convs) + 1)[-len(read) :]

    def rows(c: Chunk) -> Tensor:
        states = zip(read, layers)
        return model.answer(
            [model.before(c.own(h), k, norms.rows(model.norm_of(k))) for h, k in states]
        )

    logits = sweep.fill(rows, keep=False)
    for table in read if h0 is None else (h0, *read):
        table.free()
    return logits


def _layer(
    model: Stack, layer: int, h: Table, h0: Table | None, sweep: Sweep, norms: _Norms
) -> Table:
    """From the state that a layer reads to the next one."""
    norm = model.norm_of(layer + 1)
    late = norms.wait(norm)  # act(z) comes when all of z is known
    z = _conv(model, layer, h, h0, sweep, norms, late)
    norms.note(norm, z)
    if late and not model.options.pre:
        known = norms.rows(norm)
        sweep.fill(lambda c: model.after(c.own(z), layer, c.own(h), known), into=z)
    return z


def _conv(
    model: Stack, layer: int, h: Table, h0: Table | None, sweep: Sweep, norms: _Norms, late: bool
) -> Table:
    """Conv hop by hop, skip, and what may follow at once."""
    conv = cast(Any, model.convs[layer])
    norm, known = model.norm_of(layer + 1), norms.rows(model.norm_of(layer))

    def rows(c: Chunk, k: int, inner: Table) -> Tensor:
        state = c.gather(h) if k == 0 and conv.hops else c.own(h)
        source = model.before(state, layer, known)
        initial = None if h0 is None else c.own(h0)
        if conv.hops > 1:
            z = conv.step(c.gather(inner) if k else source, k, Hop(c.block), initial)
        else:
            z = conv(source, [Hop(c.block) for _ in range(conv.hops)], initial)[-1]
        if k + 1 < conv.hops:
            return z
        z = model.mix(z, layer, state, source, initial)
        return z if late else model.after(z, layer, state, norms.rows(norm))

    inner = h
    for k in range(max(conv.hops, 1)):
        last = k + 1 >= conv.hops
        z = sweep.fill(partial(rows, k=k, inner=inner), measure=last and norms.wait(norm))
        if k:
            inner.free()
        inner = z
    return inner


def _appnp(model: APPNP, x: Features, sweep: Sweep, norms: _Norms) -> Table:
    z = z0 = _stack(model.mlp, x, sweep, norms)
    for _ in range(model.num_hops):
        z = sweep.fill(lambda c, z=z: model.step(c.gather(z), Hop(c.block), c.own(z0)), keep=False)
    return z
