"""Staleness: how old the remembered rows are that a batch reads, and how far from what they stand for.

Valid under memories that keep outputs of hops for later batches to read: historical embeddings in all their
forms, and local message compensation. Measured on batches as the next step could draw them, with all that the memory
does before it reads (refresh passes, refills). Chen, Zhu & Song 2018; Fey et al. 2021, theorem 2, bound the error
of a step by these distances.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from graphdyn.batch import Batch
from graphdyn.estimate import Estimate, Invalid, Reading
from graphdyn.instruments.instrument import Instrument, Need
from graphdyn.memories import Memories, Memory
from graphdyn.memories.history import HistoryMemory
from graphdyn.memories.lmc import LmcMemory
from graphdyn.memories.looking import looking
from graphdyn.memories.passes import exact_outputs
from graphdyn.node_problem import NodeProblem
from graphdyn.schedule import Auto, Schedule
from graphdyn.sight import layer_name
from graphdyn.snapshot import Snapshot
from graphdyn.statistics import quotient


class Staleness(Instrument):
    """By layer whose outputs are remembered, and over all of them.

    ============  ===============================================================================================
    reading       what it is
    ============  ===============================================================================================
    ``error``     |H - Hbar| / |H| over the remembered rows that a batch reads; root of a quotient of sums
                  of squares over the batches. H: outputs of the whole graph at the present weights, without
                  dropout, norms over rows taking their statistics from all nodes
    ``age``       mean number of steps since these rows were written; one that never was counts as written
                  before the first step
    ============  ===============================================================================================

    Standard errors are those of independent batches (jackknife). A table that was filled in training holds
    the dropout masks, and the batch norms' statistics, of the steps that wrote it: with either, ``error``
    does not vanish when weights stand still.

    Args:
        m: Batches; by default what the level says.
        every: See :class:`Instrument`.
    """

    needs = Need.PROBLEM
    every: Schedule = Auto(steps=100)
    levels = ({"m": 8}, {"m": 4}, {"m": 2})
    cost = 4.0
    full = 1.0

    def setup(self, s: Snapshot) -> None:
        """See :meth:`Instrument.setup`."""
        problem = s.given()
        if not isinstance(problem, NodeProblem) or not _keepers(problem.memory):
            raise Invalid(
                "nothing is remembered that a batch reads; it is for NodeProblem with memory= a history "
                "(vr-gcn, gas, graphfm, rest, fresh, lmc)."
            )

    def measure(self, s: Snapshot) -> Reading:
        """See the class.

        Raises:
            Invalid: If no batch reads a remembered row.
        """
        problem = s.given()
        assert isinstance(problem, NodeProblem)
        assert problem.graph is not None
        with s.isolated():
            exact = exact_outputs(s.model, problem.graph)
            sums = [self._of_batch(s, problem, exact, i) for i in range(self.option("m"))]
        stacked = torch.stack(sums)  # (m, hops, 4)
        hops = [h for h in range(len(exact)) if (stacked[:, h, 3] > 0).all()]
        if not hops:
            raise Invalid("some batches read no remembered rows; ask for larger ones.")
        found: dict[str | tuple[str, str], Estimate] = {}
        for name, parts in {
            "": stacked[:, hops].sum(1),
            **{layer_name(h + 1): stacked[:, h] for h in hops},
        }.items():
            square = quotient(parts[:, 0], parts[:, 1])
            root = torch.as_tensor(square.value).sqrt()
            se = None if square.se is None else square.se / (2 * root.clamp(min=1e-30))
            own = {"error": Estimate(root, se, square.n), "age": quotient(parts[:, 2], parts[:, 3])}
            found |= {(what, name) if name else what: value for what, value in own.items()}
        return found

    def _of_batch(
        self, s: Snapshot, problem: NodeProblem, exact: tuple[Tensor, ...], i: int
    ) -> Tensor:
        """(hops, 4) squared error, squared size, ages and number of the rows that a batch reads."""
        batch = s.batch(i)
        batch = batch.at(batch.key.at(step=s.step))  # ages are counted from now
        sums = torch.zeros(len(exact), 4, dtype=torch.float64)
        with looking(problem.memory):
            problem.memory.pull(batch)
            for rows in _remembered(problem.memory, batch):
                truth = exact[rows.hop][rows.ids].double()
                error = (rows.states.double() - truth).square().sum()
                parts = (error, truth.square().sum(), rows.age.double().sum())
                own = torch.stack(parts).cpu()
                sums[rows.hop] += torch.cat([own, own.new_tensor([rows.ids.numel()])])
        return sums


class Rows(NamedTuple):
    """Remembered rows that a batch reads.

    Attributes:
        hop: Which hop wrote them.
        ids: (R,) nodes.
        states: (R, F).
        age: (R,) steps.
    """

    hop: int
    ids: Tensor
    states: Tensor
    age: Tensor


def _keepers(memory: Memory) -> list[Any]:
    members = memory.members if isinstance(memory, Memories) else (memory,)
    return [m for m in members if isinstance(m, HistoryMemory | LmcMemory)]


def _remembered(memory: Memory, batch: Batch) -> Iterator[Rows]:
    """What the tables give a batch, hop by hop."""
    for keeper in _keepers(memory):
        if isinstance(keeper, LmcMemory):
            yield from _of_halo(keeper, batch)
            continue
        model, step = keeper.model, batch.key.step
        recalled = keeper.recall(batch, count=False)
        for hop in range(model.num_hops):
            block = recalled.block(hop)
            if block.border is not None:
                ids = block.border_id
                for before, states in zip(model.recalls(hop), block.border.states):
                    yield Rows(before, ids, states, keeper.tables.age(before, ids, step))


def _of_halo(keeper: LmcMemory, batch: Batch) -> Iterator[Rows]:
    pulled = keeper.pull(batch)
    for hop in range(keeper.model.num_hops):
        block = pulled.block(hop)
        if block.halo is not None and block.halo.state is not None:
            ids = block.dst_id[block.halo.num_inside :]
            age = keeper.outputs.age(hop, ids, batch.key.step)
            yield Rows(hop, ids, block.halo.state, age)
