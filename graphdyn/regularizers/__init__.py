"""Regularizers: what a step minimises beside the loss of its batch, by name.

To add one: a frozen dataclass that derives from :class:`Regularizer`, the :class:`Objective` that it binds,
a row in :data:`REGULARIZERS`.
"""

from __future__ import annotations

from typing import Any

from graphdyn.recipes import build_recipe
from graphdyn.regularizers.graphmix import GraphMix
from graphdyn.regularizers.regularizer import Aim, Objective, Regularizer

__all__ = ["REGULARIZERS", "Aim", "GraphMix", "Objective", "Regularizer", "build"]

REGULARIZERS: dict[str, type[Regularizer]] = {"graphmix": GraphMix}


def build(name: str, **options: Any) -> Regularizer:
    """A regularizer by name.

    Args:
        name: A key of :data:`REGULARIZERS`.
        **options: Its fields. Text is read as the field's type.

    Returns:
        The recipe.

    Raises:
        InputError: If the name or an option is not known, or a value does not fit.
    """
    return build_recipe("regularizer", REGULARIZERS, name, options)
