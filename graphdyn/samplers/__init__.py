"""Samplers: one method a file. A sampler is a recipe; ``prepare`` binds it to a graph and a model.

To add one: a frozen dataclass with ``make``, plans with ``plan``, a row in :data:`SAMPLERS`.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from graphdyn.errors import InputError, unknown
from graphdyn.samplers.cluster import Cluster
from graphdyn.samplers.desraj import LayerwiseDesRaj
from graphdyn.samplers.fastgcn import FastGCN
from graphdyn.samplers.full import Full
from graphdyn.samplers.ibmb import Ibmb
from graphdyn.samplers.labor import Labor
from graphdyn.samplers.ladies import Ladies
from graphdyn.samplers.layered import LayeredSampler
from graphdyn.samplers.neighbor import Neighbor
from graphdyn.samplers.node import RandomNode
from graphdyn.samplers.persistent import Persistent
from graphdyn.samplers.pladies import Pladies
from graphdyn.samplers.poisson import Poisson
from graphdyn.samplers.saint_edge import SaintEdge
from graphdyn.samplers.saint_node import SaintNode
from graphdyn.samplers.saint_walk import SaintWalk
from graphdyn.samplers.sampler import Plans, Sampler
from graphdyn.samplers.seeds import SeedPolicy, Seeds, Shuffle, Uniform
from graphdyn.samplers.shadow import Shadow
from graphdyn.samplers.weighted import WeightedNeighbor

__all__ = [
    "Cluster",
    "FastGCN",
    "Full",
    "Ibmb",
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
    "SeedPolicy",
    "Seeds",
    "Shadow",
    "Shuffle",
    "Uniform",
    "WeightedNeighbor",
    "build",
]

SAMPLERS: dict[str, type[Sampler]] = {
    "full": Full,
    "neighbor": Neighbor,
    "neighbor-weighted": WeightedNeighbor,
    "labor": Labor,
    "fastgcn": FastGCN,
    "ladies": Ladies,
    "pladies": Pladies,
    "layerwise-desraj": LayerwiseDesRaj,
    "shadow": Shadow,
    "ibmb": Ibmb,
    "cluster": Cluster,
    "node": RandomNode,
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
    if name not in SAMPLERS:
        raise unknown("sampler", name, SAMPLERS)
    cls = SAMPLERS[name]
    kinds = {field.name: str(field.type) for field in fields(cls)}  # pyright: ignore[reportArgumentType]
    for option in options:
        if option not in kinds:
            raise unknown(f"option of the sampler {name}", option, kinds)
    return cls(**{o: _read(o, kinds[o], value) for o, value in options.items()})


def _read(option: str, kind: str, value: Any) -> Any:
    """A value in the type of a field; text comes from the command line or a file."""
    if kind.startswith("tuple"):
        value = value.split(",") if isinstance(value, str) else value
        value = (value,) if isinstance(value, int) else value
        return tuple(_number(option, kind, int, item) for item in value)
    if kind.startswith("bool"):
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if not isinstance(value, bool):
            raise InputError(f"{option} is {value!r}; expected true or false.")
        return value
    if kind.startswith(("int", "float")):
        return _number(option, kind, int if kind.startswith("int") else float, value)
    return value


def _number(option: str, kind: str, to: type, value: Any) -> Any:
    if value is None and "None" in kind:
        return None
    try:
        if (
            value is None
            or isinstance(value, bool)
            or (to is int and float(value) != int(float(value)))
        ):
            raise ValueError
        return to(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{option} is {value!r}; expected {kind}.") from None
