"""What all layer-wise samplers share: one sample of source nodes a layer, for all its targets.

A layer then has at most D + n nodes whatever the degrees, but a target keeps only those of its edges
that meet the sample, perhaps none (:func:`empty_rows`), and the estimates of all targets of a batch
are correlated. Self-loops cost no node: they are exact, and no part of the design. Weights of
candidates are norms of the columns of the targets' rows: for states of equal norm ``||a_u||`` has the
least variance (Chen et al. 2023, "Calibrate and Debias Layer-wise Sampling"); FastGCN and LADIES
were published with its square. Parallel edges count each on its own.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from graphdyn.batch import Block
from graphdyn.errors import InputError, unknown
from graphdyn.kernels.draw import Draw
from graphdyn.kernels.layerwise import column_squares, edges_from, square_unit
from graphdyn.keys import Key
from graphdyn.samplers.designs import Drawn
from graphdyn.samplers.layered import LayeredSampler
from graphdyn.samplers.sampler import LayeredPlans
from graphdyn.samplers.seeds import SeedDraw
from graphdyn.samplers.structure import Structure
from graphdyn.samplers.weight import apply_rule

IMPORTANCE: dict[str, Callable[[Tensor], Tensor]] = {
    "norm": lambda squares: squares.double().sqrt(),
    "norm2": lambda squares: squares.double(),
}
Design = Callable[[Tensor, Tensor, int, Key], Drawn]


@dataclass(frozen=True)
class Layerwise(LayeredSampler):
    """A layer-wise sampler; the other options are those of :class:`graphdyn.samplers.layered.LayeredSampler`.

    Attributes:
        nodes: Budget n of each layer, from the seeds outwards; one number serves every layer. Where a
            batch has no more candidates, all are taken, exactly.
        importance: Weight of a candidate: ``norm`` of its column, or ``norm2``, its square.
    """

    nodes: tuple[int, ...] = (512,)
    importance: str = "norm"

    def budgets(self, structure: Structure, num_hops: int) -> tuple[int, ...]:
        """The budget of each hop.

        Args:
            structure: What is drawn from.
            num_hops: The model's.

        Returns:
            One number a hop.

        Raises:
            InputError: If a budget is below 1 or beyond the number of nodes, their number does not fit
                the model, or the importance is not known.
        """
        if self.importance not in IMPORTANCE:
            raise unknown("importance", self.importance, IMPORTANCE)
        for n in self.nodes:
            if n < 1:
                raise InputError(f"the budget of {n} nodes is not allowed; give at least 1.")
            if n > structure.num_nodes:
                raise InputError(
                    f"the budget is {n} nodes, but the graph has {structure.num_nodes}; give at most "
                    f"{structure.num_nodes}, or use the sampler 'full'."
                )
        if len(self.nodes) not in (1, num_hops):
            raise InputError(
                f"{len(self.nodes)} budgets were given, but the model has {num_hops} message-passing "
                "layers; give one for each layer, or a single one for all."
            )
        return self.nodes * num_hops if len(self.nodes) == 1 else self.nodes


class LayerwisePlans(LayeredPlans):
    """See :class:`Layerwise`."""

    def __init__(self, sampler: Layerwise, structure: Structure, seeds: SeedDraw, num_hops: int):
        super().__init__(structure, seeds, num_hops, reuse=sampler.reuse)
        self.sampler, self.budgets = sampler, sampler.budgets(structure, num_hops)
        self.unit = square_unit(structure.adjacency)

    @abstractmethod
    def choose(self, dst: Tensor, n: int, key: Key) -> tuple[Tensor, Drawn]:
        """The sample of one layer.

        Args:
            dst: (D,) targets.
            n: Budget.
            key: Of this step and layer.

        Returns:
            (C,) int64 candidates, and who was drawn among them.
        """

    def draw(self, dst: Tensor, hop: int, key: Key) -> Draw:
        """See :meth:`LayeredPlans.draw`."""
        nodes, drawn = self.choose(dst, self.budgets[hop], key)
        csc, workspace = self.structure.csc, self.structure.workspace
        kept = edges_from(csc, dst, nodes[drawn.index], workspace)
        scale, prob = (_of_edges(t, kept.pick) for t in (drawn.scale, drawn.prob))
        return self.weigh(Draw(kept.indptr, kept.edge, scale, prob), dst)

    def weigh(self, draw: Draw, dst: Tensor) -> Draw:
        """The draw with the scales of the sampler's estimator."""
        return apply_rule(self.sampler.estimator, draw, self.structure, dst)

    def importance(self, dst: Tensor) -> tuple[Tensor, Tensor]:
        """(S,) the targets, then all other sources of theirs; and (S,) float64 weights."""
        args = (self.structure.adjacency, dst, self.unit, self.structure.workspace)
        nodes, squares = column_squares(*args)
        return nodes, IMPORTANCE[self.sampler.importance](squares)


@dataclass(frozen=True)
class LayerDependent(Layerwise):
    """A layer-wise sampler whose candidates are the sources of the layer's targets.

    Attributes:
        keep_targets: Targets that send to other targets are kept for certain, beside the budget: they
            are in the batch anyway, so their edges cost nothing.
    """

    keep_targets: bool = False


class LayerDependentPlans(LayerwisePlans):
    """See :class:`LayerDependent`.

    Args:
        sampler: The recipe.
        structure: What is drawn from.
        seeds: Bound seed policy.
        num_hops: The model's.
        design: Who is drawn, from weights, ids, n and a key.
    """

    def __init__(
        self,
        sampler: LayerDependent,
        structure: Structure,
        seeds: SeedDraw,
        num_hops: int,
        design: Design,
    ):
        super().__init__(sampler, structure, seeds, num_hops)
        self.design, self.keep_targets = design, sampler.keep_targets

    def choose(self, dst: Tensor, n: int, key: Key) -> tuple[Tensor, Drawn]:
        """See :meth:`LayerwisePlans.choose`."""
        nodes, weight = self.importance(dst)
        first = dst.numel() if self.keep_targets else 0
        drawn = self.design(weight[first:], nodes[first:], n, key)
        if not first:
            return nodes, drawn
        sure = torch.ones(first, dtype=torch.float64, device=dst.device)
        index = torch.cat([torch.arange(first, device=dst.device), drawn.index + first])
        return nodes, Drawn(index, torch.cat([sure, drawn.scale]), torch.cat([sure, drawn.prob]))


def empty_rows(structure: Structure, block: Block) -> int:
    """How many targets lost all their edges: the full row has some, the block's has none.

    An unbiased estimate pays for these zeros in the rows that are not empty; a self-normalised one
    (``hajek``, ``published``) does not, so it is biased by their rate.

    Args:
        structure: What the block was drawn from.
        block: One layer of a plan.

    Returns:
        A number from 0 to D.
    """
    dst = slice(None) if block.node_id is None else block.node_id[: block.num_dst]
    had = structure.csc.degree[dst] > 0
    return int((had & (block.adjacency.csc.degree == 0)).sum())


def _of_edges(values: Tensor, pick: Tensor) -> Tensor:
    """(E,) float32 from the numbers of the drawn; place -1, a self-loop, is 1."""
    return torch.cat([values, values.new_ones(1)])[pick].float()
