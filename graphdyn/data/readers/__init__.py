"""Readers, one raw format a file: ``read(card, root) -> Parts``. A new format is a new file here.

Where features lie in a file of their own, ``read`` leaves them out and ``read_features(card,
root)`` gives them; where the split is stored in a way of its own, ``split_ids(card, root, index)``
does.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import replace
from pathlib import Path

from graphdyn.data.cards import Card
from graphdyn.data.parts import Parts
from graphdyn.errors import unknown


def formats() -> list[str]:
    """Names of all raw formats."""
    return sorted(m.name.replace("_", "-") for m in pkgutil.iter_modules(__path__))


def read(card: Card, root: Path, features: bool = True) -> Parts:
    """Read the raw files of a data set.

    Args:
        card: Names the format and its options.
        root: Data root.
        features: Whether to read node features.

    Raises:
        DataError: If a file is missing, corrupt or unsafe.
    """
    reader = module(card)
    parts = reader.read(card, root)
    if not features:
        return replace(parts, x=None)
    if hasattr(reader, "read_features"):
        return replace(parts, x=reader.read_features(card, root))
    return parts


def module(card: Card):
    """The module that reads a card's format."""
    if card.format not in formats():
        raise unknown("format", card.format, formats())
    return importlib.import_module(f"{__name__}.{card.format.replace('-', '_')}")
