"""Historical embeddings: what each hop last wrote for a node stands in where the batch does not compute it.

``control``: VR-GCN (Chen, Zhu & Song 2018), whose form for dropout is :mod:`graphdyn.memories.cvd`.
``replace``: GNNAutoScale (Fey et al. 2021); with ``momentum`` below 1 the moving average of GraphFM (Yu et
al. 2022), with ``refresh`` passes REST (Xue et al. 2025). Tables hold what stands before norm and
activation, so a remembered row meets today's statistics. The forward pass is unbiased in mode control, given the tables; gradients are not: none flows into a table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from graphdyn.batch import Batch, Block
from graphdyn.errors import InputError, unknown
from graphdyn.graph import Graph
from graphdyn.memories.memory import Memory, MemoryRecipe, Setting
from graphdyn.memories.messages import other_than_sum
from graphdyn.memories.passes import exact_outputs, forward, hop_widths
from graphdyn.memories.refresh import cost, extra_batches, whole_cost
from graphdyn.memories.tables import DTYPES, Ages, Tables, table_bytes
from graphdyn.models.output import Output
from graphdyn.parallel import World
from graphdyn.samplers import Sampler
from graphdyn.samplers.border import Bordered

STARTS = ("exact", "zero")


@dataclass(frozen=True)
class History(MemoryRecipe):
    """One row a node and hop.

    Attributes:
        mode: ``control`` or ``replace``, see :mod:`graphdyn.samplers.border`.
        start: ``exact``: one pass over the whole graph fills the tables. ``zero``: as published; the
            first epochs then average with zeros.
        momentum: Share of the new row in what is written.
        refresh: Passes a step over other batches that only write, see :mod:`graphdyn.memories.refresh`.
        refill: Write all rows anew, exactly, every so many steps; ``None``: never.
        dtype: ``float32`` or ``bfloat16``.
        host: Keep tables in main memory, page-locked, also when the model is on a GPU.
    """

    modes: ClassVar[tuple[str, ...]] = ("control", "replace")
    parallel: ClassVar[bool] = True
    regularized: ClassVar[bool] = True

    mode: str = "replace"
    start: str = "exact"
    momentum: float = 1.0
    refresh: int = 0
    refill: int | None = None
    dtype: str = "float32"
    host: bool = False

    def __post_init__(self) -> None:
        for name, known in (("mode", self.modes), ("start", STARTS), ("dtype", DTYPES)):
            if getattr(self, name) not in known:
                raise unknown(name, getattr(self, name), known)
        if not 0 < self.momentum <= 1:
            raise InputError(f"momentum is {self.momentum}; it must lie in (0, 1].")
        if self.refresh < 0:
            raise InputError(f"refresh is {self.refresh}; it must be at least 0 passes a step.")
        if self.refill is not None and self.refill < 1:
            raise InputError(f"refill is {self.refill}; give at least 1 step, or None for never.")

    def wrap(self, sampler: Sampler) -> Sampler:
        """See :meth:`MemoryRecipe.wrap`."""
        return Bordered(sampler, self.mode)

    def check(self, model: nn.Module) -> None:
        """Control variates are for messages that are summed: attention and maxima are not."""
        what = other_than_sum(model)
        if self.mode != "replace" and what:
            raise InputError(
                f"a control variate needs messages that are summed, but {type(model).__name__} {what}; "
                "use mode 'replace', or another model."
            )

    def declare(self, model: Any, graph: Graph) -> int:
        """See :meth:`MemoryRecipe.declare`."""
        return table_bytes(recalled(model, graph), graph.num_nodes, self.dtype)

    def bind(self, setting: Setting) -> HistoryMemory:
        """See :meth:`MemoryRecipe.bind`."""
        return HistoryMemory(self, setting)


def everyone(world: World, ids: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """What all ranks have computed, so that tables stay the same; of a node the lowest rank's row.

    Args:
        world: Who exchanges.
        ids: (R,) distinct nodes.
        rows: (R, F).
    """
    if world.alone:
        return ids, rows
    ids, rows = world.gather_rows(ids), world.gather_rows(rows)
    order = torch.argsort(ids, stable=True)
    first = torch.ones_like(order, dtype=torch.bool)
    first[1:] = ids[order].diff() != 0
    return ids[order[first]], rows[order[first]]


def recalled(model: Any, graph: Graph) -> dict[int, int]:
    """Hops whose outputs a later hop may read from a memory, with their widths."""
    hops = {before for hop in range(1, model.num_hops) for before in model.recalls(hop)}
    widths = hop_widths(model, graph)
    return {hop: widths[hop] for hop in sorted(hops)}


class HistoryMemory(Memory):
    """See :class:`History`.

    Attributes:
        tables: What is remembered.
    """

    hidden = True

    def __init__(self, recipe: History, setting: Setting):
        self.recipe, self.setting, self.model = recipe, setting, setting.model
        graph = setting.graph
        device = torch.device("cpu") if recipe.host else graph.device
        self.tables = Tables(
            recalled(self.model, graph),
            graph.num_nodes,
            dtype=recipe.dtype,
            device=device,
            pin=recipe.host and graph.device.type == "cuda",
        )
        self.ages = Ages(graph.device)
        self.spent = torch.zeros(2, dtype=torch.float64)  # nodes, edges of passes that only write

    def start(self) -> None:
        """See :meth:`Memory.start`."""
        if self.recipe.start == "exact":
            self.fill(0)

    def fill(self, step: int) -> None:
        """Write the exact outputs of all nodes under the present weights, without dropout."""
        self.tables.fill(exact_outputs(self.model, self.setting.graph), step)

    def pull(self, batch: Batch) -> Batch:
        """See :meth:`Memory.pull`."""
        self.refresh(batch)
        return self.recall(batch)

    def look(self, batch: Batch) -> Batch:
        """See :meth:`Memory.look`."""
        return self.recall(batch, count=False)

    def refresh(self, batch: Batch) -> None:
        """What the recipe asks for before a step reads the tables."""
        recipe, graph, step = self.recipe, self.setting.graph, batch.key.step
        if recipe.refill is not None and step and step % recipe.refill == 0:
            self.fill(step)
            self.spent += whole_cost(self.model, graph)
        for extra in extra_batches(self.setting, batch, recipe.refresh):
            extra = self.recall(extra, count=False)
            self.remember(extra, forward(self.model, extra))
            self.spent += cost(extra, self.model.num_hops)

    def recall(self, batch: Batch, *, count: bool = True) -> Batch:
        """The batch with what the tables hold; whether the ages of these rows count in the report."""
        # A block of all hops is read again and again where skips add every state below: pulled once.
        read: dict[tuple[int, int], Tensor] = {}
        hops = range(self.model.num_hops)
        blocks = tuple(self._pulled(batch.block(h), h, batch.key.step, count, read) for h in hops)
        return replace(batch, blocks=blocks or batch.blocks)  # a model without hops keeps its rows

    def _pulled(
        self, block: Block, hop: int, step: int, count: bool, read: dict[tuple[int, int], Tensor]
    ) -> Block:
        if block.border is None:
            return block
        ids, recalls = block.border_id, self.model.recalls(hop)
        for before in recalls:
            if (id(block), before) not in read:
                read[id(block), before] = self.tables.pull(before, ids)
        states = tuple(read[id(block), before] for before in recalls)
        if count:
            self.ages.add(self.tables.age(recalls[-1], ids, step))
        return replace(block, border=replace(block.border, states=states))

    def push(self, batch: Batch, output: Output) -> None:
        """See :meth:`Memory.push`."""
        self.remember(batch, output)

    def remember(self, batch: Batch, output: Output) -> None:
        """Write what a pass over a batch computed, on every rank what all have computed."""
        for hop in self.tables.rows:
            ids, rows = batch.block(hop).dst_id, output.hidden[hop].detach()
            ids, rows = everyone(self.setting.world, ids, rows)
            self.tables.push(hop, ids, rows, batch.key.step, self.recipe.momentum)

    def report(self) -> dict[str, float]:
        """Mean age in steps of the rows that were read; nodes and edges of passes that only wrote."""
        nodes, edges = self.spent.tolist()
        self.spent.zero_()
        return self.ages.report() | (
            {"refresh_nodes": nodes, "refresh_edges": edges} if nodes else {}
        )

    def state(self) -> dict[str, Tensor]:
        """See :meth:`Memory.state`."""
        return {**self.tables.state(), "ages": self.ages.counts, "spent": self.spent}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See :meth:`Memory.restore`."""
        self.tables.restore(state)
        self.ages.counts.copy_(state["ages"])
        self.spent.copy_(state["spent"])
