"""LABOR, layer-neighbour sampling (Balin & Catalyurek 2023): neighbour sampling whose targets share draws.

Every source t has one number r_t a layer. Each target keeps the k sources with the smallest (LABOR-0,
sequential: exactly k, to one target the law of neighbour sampling) or those with ``r_t < min(1, c_s
pi_t)`` (Poisson: k on average, or what gives the same variance). Targets with common neighbours then draw
the same ones: fewer unique nodes at the variance per target of neighbour sampling. But estimates of
different targets become correlated, so the variance of a batch's mean, and of its gradient, grows.

Sequential draws with unequal pi have no closed-form inclusion probability, hence no unbiased scale: they are
not offered. Self-loops are kept beside the k, exact, and do not count in d.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor

from graphdyn.errors import InputError, unknown
from graphdyn.kernels.draw import Draw
from graphdyn.kernels.labor import Uniforms, draw_smallest, has_parallel
from graphdyn.keys import Key
from graphdyn.samplers.importance import draw_poisson
from graphdyn.samplers.layered import LayeredSampler
from graphdyn.samplers.neighbor import expand_fanouts
from graphdyn.samplers.sampler import LayeredPlans
from graphdyn.samplers.seeds import SeedDraw
from graphdyn.samplers.structure import Structure
from graphdyn.samplers.weight import apply_rule

DESIGNS = ("auto", "sequential", "poisson")


@dataclass(frozen=True)
class Labor(LayeredSampler):
    """LABOR; other options are those of :class:`graphdyn.samplers.layered.LayeredSampler`.

    Attributes:
        fanouts: Neighbours a target, from the seeds outwards; -1 is all. One number serves every layer.
        rounds: Of importance, i of LABOR-i; -1 until they no longer help (LABOR-*).
        design: ``sequential``: exactly k; ``poisson``: k on average where rounds is 0 and nothing is
            weighted; ``auto``: sequential where it is unbiased, that is there, else poisson.
        weighted: Draw by the size |a| of the matrix entry; entries of 0 are never drawn.
        layer_dependency: The same r_t in all layers: equal fan-outs give a node the same neighbours in
            each (LABOR-0). Even a linear network of two layers is then estimated with bias.
        batch_dependency: kappa. The r_t turn slowly from one window of kappa steps to the next: batches
            close in time share nodes, and depend on each other; 1 is independent.
    """

    fanouts: tuple[int, ...] = (10,)
    rounds: int = 0
    design: str = "auto"
    weighted: bool = False
    layer_dependency: bool = False
    batch_dependency: int = 1

    def bind(self, structure: Structure, seeds: SeedDraw, num_hops: int, key: Key) -> LaborPlans:
        """See :meth:`graphdyn.samplers.layered.LayeredSampler.bind`."""
        self._check()
        return LaborPlans(self, structure, seeds, expand_fanouts(self.fanouts, num_hops))

    @property
    def sequential(self) -> bool:
        """Whether exactly k are drawn."""
        return self.design != "poisson" and not self.rounds and not self.weighted

    def _check(self) -> None:
        if self.design not in DESIGNS:
            raise unknown("design", self.design, DESIGNS)
        if self.rounds < -1:
            raise InputError(f"rounds is {self.rounds}; give 0 or more, or -1 to converge.")
        if self.batch_dependency < 1:
            raise InputError(
                f"batch_dependency is {self.batch_dependency}; give at least 1, which is independent."
            )
        if self.design == "sequential" and not self.sequential:
            what = "weighted" if self.weighted else f"rounds is {self.rounds}"
            raise InputError(
                f"the design is 'sequential', but {what}: sources drawn in unequal shares have no known "
                "probability then, and no unbiased estimate; use the design 'poisson'."
            )


class LaborPlans(LayeredPlans):
    """See :class:`Labor`."""

    def __init__(
        self, sampler: Labor, structure: Structure, seeds: SeedDraw, fanouts: tuple[int, ...]
    ):
        super().__init__(structure, seeds, len(fanouts), reuse=sampler.reuse)
        self.sampler, self.fanouts = sampler, fanouts
        self.parallel = has_parallel(structure.csc)

    def draw(self, dst: Tensor, hop: int, key: Key) -> Draw:
        """See :meth:`LayeredPlans.draw`."""
        labor, structure, k = self.sampler, self.structure, self.fanouts[hop]
        uniforms = self.uniforms(key)
        if labor.sequential:
            csc, loops = structure.csc, structure.loops
            draw = draw_smallest(csc, loops, dst, k, uniforms, parallel=self.parallel)
        else:
            draw = draw_poisson(structure, dst, k, labor.rounds, uniforms, weighted=labor.weighted)
        return apply_rule(labor.estimator, draw, structure, dst)

    def uniforms(self, key: Key) -> Uniforms:
        """The numbers r_t of a layer.

        Args:
            key: Of step and layer; its path ends in the layer.
        """
        if self.sampler.layer_dependency:
            key = replace(key, path=(*key.path[:-1], "shared"))
        kappa = self.sampler.batch_dependency
        if kappa == 1:
            return Uniforms(key.bits)
        window, turn = divmod(key.step, kappa)
        # Windows are counted over the run and do not know of epochs.
        bits, later = (key.at(epoch=0, step=window + i).bits for i in (0, 1))
        return Uniforms(bits, later, math.pi / 2 * turn / kappa)
