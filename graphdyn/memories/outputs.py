"""Output memory: each hop's output is a remembered one and what has changed since (SGCN+).

``H_t[D] = H_s[D] + f(B, H_t; W_t) - f(B, H_s; W_s)`` for the targets D of a hop's sampled block B, exact for
all nodes again every K steps. The first and the last term depend on the past alone: they are
``Block.offset``, a constant. The gradient is that of ``f(B, H_t; W_t)`` in the sampled block. Tables hold
what stands before norm and activation.

=========  ======================  ===============================================================
rule       s                       what drifts from the truth
=========  ======================  ===============================================================
sarah      t - 1                   sampled differences add up, and a row that is not drawn misses
                                   the steps in between: a bias that grows until the next snapshot
svrg       the last snapshot       nothing in a linear network: unbiased for every row; the variance
                                   grows with the distance of the parameters from the snapshot
=========  ======================  ===============================================================

*sarah* is the zeroth-order variance reduction of Cong, Ramezani & Mahdavi (arXiv 2103.02696): SGCN+, and
with the memory ``spider`` on top SGCN++. *svrg* is its plain sibling, after Johnson & Zhang 2013.

At an unchanged model right after a snapshot outputs are exact whatever is drawn, so their variance is 0.
Where messages are not summed (attention, maxima) the differences are biased under both rules. Both terms
share block, dropout masks and batch-norm mode, so differences hold little of the dropout: values are
nearly those of the network without. Valid with every sampler of one graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from graphdyn.batch import Batch, Block
from graphdyn.checkpoint import below, prefixed
from graphdyn.errors import InputError, unknown
from graphdyn.graph import Graph
from graphdyn.memories.anchor import (
    Countdown,
    anchor_bytes,
    assign,
    check_whole,
    copies,
    parameters,
)
from graphdyn.memories.memory import Memory, MemoryRecipe, Setting
from graphdyn.memories.passes import exact_outputs, hop_widths
from graphdyn.memories.tables import DTYPES, Tables, table_bytes
from graphdyn.models.output import Output
from graphdyn.precision import autocast
from graphdyn.samplers import Sampler, Shadow

RULES = ("sarah", "svrg")


@dataclass(frozen=True)
class Outputs(MemoryRecipe):
    """One row a node and hop, the last hop too, and one copy of the parameters.

    A step costs one more forward pass on its batch, a snapshot one over the whole graph.

    Attributes:
        rule: ``sarah`` or ``svrg``, see the module.
        every: K, steps between snapshots; 0: an epoch.
        drift: Take the next snapshot early, as soon as the tables have moved from the last one by
            more than this, in mean absolute value over all entries; needs a second set of tables.
            The authors use 0.002. 0: never. For the rule ``sarah``.
        dtype: ``float32`` or ``bfloat16``.
    """

    rule: str = "sarah"
    every: int = 0
    drift: float = 0.0
    dtype: str = "float32"

    def __post_init__(self) -> None:
        check_whole("every", self.every, 0)
        if self.drift < 0:
            raise InputError(f"drift is {self.drift}; it must be at least 0 (0: no limit).")
        for name, known in (("rule", RULES), ("dtype", DTYPES)):
            if getattr(self, name) not in known:
                raise unknown(name, getattr(self, name), known)
        if self.drift and self.rule == "svrg":
            raise InputError("under the rule 'svrg' tables stay where they are; leave out drift.")

    def wrap(self, sampler: Sampler) -> Sampler:
        """See :meth:`MemoryRecipe.wrap`."""
        if isinstance(sampler, Shadow):
            raise InputError(
                "the sampler 'shadow' gives a node another output in each subgraph, so its outputs "
                "cannot be remembered by node; use a sampler of one graph, such as 'neighbor'."
            )
        return sampler

    def check(self, model: nn.Module) -> None:
        """There must be hops, whose outputs are remembered."""
        if not model.num_hops:
            name = type(model).__name__
            raise InputError(f"{name} has no message passing, so it has no outputs to remember.")

    def declare(self, model: Any, graph: Graph) -> int:
        """See :meth:`MemoryRecipe.declare`."""
        tables = table_bytes(widths(model, graph), graph.num_nodes, self.dtype)
        return tables * (2 if self.drift else 1) + anchor_bytes(model)

    def bind(self, setting: Setting) -> OutputsMemory:
        """See :meth:`MemoryRecipe.bind`."""
        return OutputsMemory(self, setting)


def widths(model: Any, graph: Graph) -> dict[int, int]:
    """F by hop."""
    return dict(enumerate(hop_widths(model, graph)))


@dataclass(frozen=True, eq=False, kw_only=True)
class Held(Block):
    """A block whose outputs are held at given values, and which notes how far off they were.

    Attributes:
        values: (D, F) what the hop's output is taken to be.
        notes: Where (D, F) differences go, one a pass.
    """

    values: Tensor
    notes: list[Tensor]

    def shift(self, z: Tensor) -> Tensor:
        """See :meth:`Block.shift`."""
        self.notes.append(self.values - z)
        return self.values.to(self.notes[-1].dtype)


class OutputsMemory(Memory):
    """See :class:`Outputs`.

    Attributes:
        tables: H_s, by hop.
        anchor: W_s, by name.
    """

    hidden = True

    def __init__(self, recipe: Outputs, setting: Setting):
        self.recipe, self.setting, self.model = recipe, setting, setting.model
        self.moves = recipe.rule == "sarah"  # whether s moves between snapshots
        self.anchor = copies(self.model)
        self.tables, self.taken = self._tables(), self._tables() if recipe.drift else None
        self.distance = torch.zeros((), dtype=torch.float64)
        self.countdown = Countdown(recipe.every, setting)
        self.snapshots = torch.zeros((), dtype=torch.int64)  # since the last report

    def _tables(self) -> Tables:
        graph = self.setting.graph
        rows = widths(self.model, graph)
        return Tables(rows, graph.num_nodes, dtype=self.recipe.dtype, device=graph.device)

    def pull(self, batch: Batch) -> Batch:
        """See :meth:`Memory.pull`."""
        if self.countdown.due:
            self._snapshot(batch.key.step)
        self.countdown.step()
        held = [self._held(batch.block(hop), hop) for hop in range(self.model.num_hops)]
        self._replay(replace(batch, blocks=tuple(held)))
        if self.moves:
            assign(self.anchor, parameters(self.model))
        blocks = (
            replace(batch.block(hop), offset=block.notes[-1]) for hop, block in enumerate(held)
        )
        return replace(batch, blocks=tuple(blocks))

    def _snapshot(self, step: int) -> None:
        """Exact outputs of all nodes under the present parameters, without dropout."""
        outputs = exact_outputs(self.model, self.setting.graph)
        self.tables.fill(outputs, step)
        if self.taken is not None:
            self.taken.fill(outputs, step)
        assign(self.anchor, parameters(self.model))
        self.distance.zero_()
        self.snapshots += 1

    def _held(self, block: Block, hop: int) -> Held:
        if block.halo is not None:
            raise InputError(
                "the memory 'output' moves what sampled targets write, but a halo's outputs are composed "
                "from its own memory; use a sampler without halo."
            )
        if block.border is not None and not block.border.states:
            raise InputError(
                "the memory 'output' came before the one that fills in the remembered rows; name it last."
            )
        values = self.tables.pull(hop, block.dst_id)
        return Held(**vars(block), values=values, notes=[])

    def _replay(self, batch: Batch) -> None:
        """The model of step s on this step's batch, from remembered states; leaves no trace."""
        buffers = {n: b.clone() for n, b in self.model.named_buffers()}
        values = {**self.anchor, **buffers}
        with torch.no_grad(), autocast(batch.y.device, self.setting.precision):
            torch.func.functional_call(self.model, values, (batch,), {"hidden": False})

    def push(self, batch: Batch, output: Output) -> None:
        """See :meth:`Memory.push`."""
        for hop, rows in enumerate(output.hidden if self.moves else ()):
            ids = batch.block(hop).dst_id
            before = self._away(hop, ids)
            self.tables.push(hop, ids, rows.detach(), batch.key.step)
            self.distance += self._away(hop, ids) - before
        if self.taken is not None and self.drifted > self.recipe.drift:
            self.countdown.reset()

    def _away(self, hop: int, ids: Tensor) -> float:
        """Sum of absolute differences between rows and the last snapshot's."""
        if self.taken is None:
            return 0.0
        difference = self.tables.pull(hop, ids) - self.taken.pull(hop, ids)
        return difference.abs().sum(dtype=torch.float64).item()

    @property
    def drifted(self) -> float:
        """Mean absolute difference between the tables and the last snapshot."""
        return self.distance.item() / sum(t.numel() for t in self.tables.rows.values())

    def report(self) -> dict[str, float]:
        """Snapshots since the last call; with a limit, the drift from the last one."""
        taken = float(self.snapshots)
        self.snapshots.zero_()
        drift = {} if self.taken is None else {"output_drift": self.drifted}
        return {"output_snapshots": taken, **drift}

    def state(self) -> dict[str, Tensor]:
        """See :meth:`Memory.state`."""
        parts = prefixed("anchor", self.anchor) | prefixed("now", self.tables.state())
        if self.taken is not None:
            parts |= prefixed("taken", self.taken.state())
        counted = {"distance": self.distance, "snapshots": self.snapshots}
        return parts | {"left": self.countdown.left, **counted}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See :meth:`Memory.restore`."""
        state = dict(state)
        assign(self.anchor, below("anchor", state))
        self.tables.restore(below("now", state))
        if self.taken is not None:
            self.taken.restore(below("taken", state))
        self.countdown.left.copy_(state["left"])
        self.distance.copy_(state["distance"])
        self.snapshots.copy_(state["snapshots"])
