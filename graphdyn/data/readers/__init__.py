"""Readers, one raw format a file: ``read(card, root) -> Parts``. A new format is a new file here."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from graphdyn.data.cards import Card
from graphdyn.data.parts import Parts
from graphdyn.errors import unknown


def formats() -> list[str]:
    """Names of all raw formats."""
    return sorted(m.name.replace("_", "-") for m in pkgutil.iter_modules(__path__))


def read(card: Card, root: Path) -> Parts:
    """Read the raw files of a data set.

    Args:
        card: Names the format and its options.
        root: Data root.

    Raises:
        DataError: If a file is missing, corrupt or unsafe.
    """
    if card.format not in formats():
        raise unknown("format", card.format, formats())
    module = importlib.import_module(f"{__name__}.{card.format.replace('-', '_')}")
    return module.read(card, root)
