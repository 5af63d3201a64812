"""Instruments, one quantity a file; each says when it is valid."""

from __future__ import annotations

from graphdyn.errors import unknown
from graphdyn.instruments.instrument import Instrument, Need

INSTRUMENTS: dict[str, type[Instrument]] = {kind.name: kind for kind in ()}

# What their names on the command line stand for.
PRESETS: dict[str, tuple[str, ...]] = {
    "light": (),
    "standard": (),
    "sampler": (),
}


def build_instruments(names: str) -> list[Instrument]:
    """Instruments by name, with their default options.

    Args:
        names: Presets and names of instruments, joined by ``+``; each counts once.

    Raises:
        InputError: If a name is unknown.
    """
    wanted: dict[str, None] = {}
    for name in names.split("+"):
        if name not in INSTRUMENTS and name not in PRESETS:
            raise unknown("instrument", name, [*PRESETS, *INSTRUMENTS])
        wanted |= dict.fromkeys(PRESETS.get(name, (name,)))
    return [INSTRUMENTS[name]() for name in wanted]


__all__ = ["INSTRUMENTS", "PRESETS", "Instrument", "Need", "build_instruments"]
