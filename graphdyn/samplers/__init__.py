"""Samplers: one method a file. A sampler is a recipe; ``prepare`` binds it to a graph and a model.

To add one: a frozen dataclass with ``make``, plans with ``plan``, a row in :data:`SAMPLERS`.
"""

from __future__ import annotations

from typing import Any

from graphdyn.recipes import build_recipe
from graphdyn.samplers.bandit import Bandit
from graphdyn.samplers.cluster import Cluster
from graphdyn.samplers.desraj import LayerwiseDesRaj
from graphdyn.samplers.fastgcn import FastGCN
from graphdyn.samplers.full import Full
from graphdyn.samplers.ibmb import Ibmb
from graphdyn.samplers.induced import Induced
from graphdyn.samplers.labor import Labor
from graphdyn.samplers.ladies import Ladies
from graphdyn.samplers.layered import LayeredSampler
from graphdyn.samplers.neighbor import Neighbor
from graphdyn.samplers.node import RandomNode
from graphdyn.samplers.persistent import Persistent
from graphdyn.samplers.pladies import Pladies
from graphdyn.samplers.poisson import Poisson, Scored
from graphdyn.samplers.saint_edge import SaintEdge
from graphdyn.samplers.saint_node import SaintNode
from graphdyn.samplers.saint_walk import SaintWalk
from graphdyn.samplers.sampler import Plans, Sampler
from graphdyn.samplers.seeds import SeedPolicy, Seeds, Shuffle, Simple, Uniform
from graphdyn.samplers.shadow import Shadow
from graphdyn.samplers.weighted import WeightedNeighbor

__all__ = [
    "Bandit",
    "Cluster",
    "FastGCN",
    "Full",
    "Ibmb",
    "Induced",
    "Labor",
    "Ladies",
    "LayeredSampler",
    "LayerwiseDesRaj",
    "Neighbor",
    "Persistent",
    "Pladies",
    "Plans",
    "Poisson",
    "RandomNode",
    "SaintEdge",
    "SaintNode",
    "SaintWalk",
    "Sampler",
    "Scored",
    "SeedPolicy",
    "Seeds",
    "Shadow",
    "Shuffle",
    "Simple",
    "Uniform",
    "WeightedNeighbor",
    "build",
]

SAMPLERS: dict[str, type[Sampler]] = {
    "full": Full,
    "neighbor": Neighbor,
    "neighbor-weighted": WeightedNeighbor,
    "bandit": Bandit,
    "labor": Labor,
    "fastgcn": FastGCN,
    "ladies": Ladies,
    "pladies": Pladies,
    "layerwise-desraj": LayerwiseDesRaj,
    "shadow": Shadow,
    "ibmb": Ibmb,
    "cluster": Cluster,
    "node": RandomNode,
    "induced": Induced,
    "saint-node": SaintNode,
    "saint-edge": SaintEdge,
    "saint-walk": SaintWalk,
}


def build(name: str, **options: Any) -> Sampler:
    """A sampler by name.

    Args:
        name: A key of :data:`SAMPLERS`.
        **options: Its fields. Text is read as the field's type ("15,10,5" as fan-outs).

    Returns:
        The recipe.

    Raises:
        InputError: If the name or an option is not known, or a value does not fit.
    """
    return build_recipe("sampler", SAMPLERS, name, options)
