"""Architectures: batch -> logits and hidden states. One file each; one forward for every use.

A model says which matrix it multiplies with (``model.propagation``), how many blocks it consumes
(``model.num_hops``) and maps a batch to an :class:`Output`. To add one: write the file, give it a
row in :data:`MODELS` and a row in the table of ``tests/cases.py``; the tests there then apply to
it.
"""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any

from graphdyn.errors import unknown
from graphdyn.models.appnp import APPNP
from graphdyn.models.gat import GAT, GATv2
from graphdyn.models.gcn import GCN
from graphdyn.models.gcnii import GCNII
from graphdyn.models.graph_unet import GraphUNet
from graphdyn.models.label_propagation import label_propagation
from graphdyn.models.mlp import MLP
from graphdyn.models.norms import NORMS, GraphNorm, PairNorm
from graphdyn.models.options import Options
from graphdyn.models.output import Output
from graphdyn.models.sage import SAGE
from graphdyn.models.sgc import SGC
from graphdyn.models.stack import Stack

__all__ = [
    "build",
    "model_options",
    "MODELS",
    "Output",
    "Options",
    "Stack",
    "MLP",
    "SGC",
    "GCN",
    "SAGE",
    "GAT",
    "GATv2",
    "GCNII",
    "APPNP",
    "GraphUNet",
    "label_propagation",
    "NORMS",
    "GraphNorm",
    "PairNorm",
]

MODELS: dict[str, type[Stack] | type[APPNP] | type[GraphUNet]] = {
    "mlp": MLP,
    "sgc": SGC,
    "gcn": GCN,
    "sage": SAGE,
    "gat": GAT,
    "gatv2": GATv2,
    "gcnii": GCNII,
    "appnp": APPNP,
    "graph-unet": GraphUNet,
}


def build(
    name: str, num_features: int, num_classes: int, **options: Any
) -> Stack | APPNP | GraphUNet:
    """A model by name.

    Args:
        name: A key of :data:`MODELS`.
        num_features: Width of the input.
        num_classes: Width of the output.
        **options: See :func:`model_options`.

    Returns:
        A model in training mode; its parameters are a function of ``seed`` alone.

    Raises:
        InputError: If the name or an option is not known, out of range, or excluded by another.

    Example:
        >>> build("gat", 8, 3, heads=2, hidden=16).num_hops
        2
    """
    known = model_options(name)
    for option in options:
        if option not in known:
            raise unknown(f"option of {name}", option, known)
    return MODELS[name](num_features, num_classes, **options)


def model_options(name: str) -> dict[str, Any]:
    """Every option of a model with its default.

    Args:
        name: A key of :data:`MODELS`.

    Returns:
        Options of the architecture, then those that all share.

    Raises:
        InputError: If the name is not known.
    """
    if name not in MODELS:
        raise unknown("model", name, MODELS)
    own = inspect.signature(MODELS[name]).parameters.values()
    options = {p.name: p.default for p in own if p.kind is p.KEYWORD_ONLY}
    return options | {f.name: f.default for f in fields(Options)} | MODELS[name].defaults
