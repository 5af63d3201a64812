"""Data sets: cards, raw formats to Graph, splits, transforms, synthetic graphs."""

from graphdyn.data.cards import Card, card, names
from graphdyn.data.catalog import available, get, info, verify
from graphdyn.data.loader import load, resplit
from graphdyn.data.places import cache_folder, data_root
from graphdyn.data.splits import random_by_ratio, random_per_class, random_split
from graphdyn.data.synthetic import csbm, power_law
from graphdyn.data.transforms import (
    binarize,
    induced_subgraph,
    largest_component,
    remove_self_loops,
    row_normalize,
    to_undirected,
)

__all__ = [
    "load",
    "resplit",
    "names",
    "card",
    "Card",
    "info",
    "get",
    "verify",
    "available",
    "data_root",
    "cache_folder",
    "random_split",
    "random_per_class",
    "random_by_ratio",
    "row_normalize",
    "binarize",
    "to_undirected",
    "remove_self_loops",
    "largest_component",
    "induced_subgraph",
    "csbm",
    "power_law",
]
