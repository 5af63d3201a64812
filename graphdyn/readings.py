"""Readings: what an instrument says, as rows of a journal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor

from graphdyn.errors import InputError
from graphdyn.estimate import Curve, Estimate, Invalid, Number, Reading
from graphdyn.instruments.instrument import Instrument
from graphdyn.journal import Line, Metric


def rows_of(instrument: Instrument, reading: Reading) -> list[Metric | Line]:
    """What an instrument says, as rows of a journal.

    Raises:
        InputError: If it is not numbers by name.
    """
    if not isinstance(reading, Mapping):
        raise InputError(
            f"{type(instrument).__name__}.measure gave {type(reading).__name__}; it must give numbers by name."
        )
    numbers = {k: v for k, v in reading.items() if not isinstance(v, Invalid)}
    return [_row(instrument, key, value) for key, value in numbers.items()]


def gaps_of(instrument: Instrument, reading: Reading) -> list[tuple[str, str]]:
    """What was to be measured, and why it is missing, once for groups with one reason."""
    gaps = [(key, str(v)) for key, v in reading.items() if isinstance(v, Invalid)]
    named = [(key if isinstance(key, str) else key[0], reason) for key, reason in gaps]
    own = instrument.name
    return [(f"{own}.{what}" if what else own, reason) for what, reason in dict.fromkeys(named)]


def _row(
    instrument: Instrument, key: str | tuple[str, str], value: Number | Estimate | Curve
) -> Metric | Line:
    what, group = (key, "all") if isinstance(key, str) else key
    name = f"{instrument.name}.{what}"
    if isinstance(value, Curve):
        return Line(name, group, cast(Any, value.x), cast(Any, value.y))
    found = value if isinstance(value, Estimate) else Estimate(value)
    level = instrument.level if len(instrument.levels) > 1 else None
    number, se, pred = (
        v if v is None or isinstance(v, (float, int)) else _number(name, v)
        for v in (found.value, found.se, found.pred)
    )
    if number is None:
        raise InputError(f"{name} is None; leave it out, or give an Invalid that says why.")
    return Metric(name, group, number, se, pred, found.n, level)


def _number(name: str, value: Any) -> Any:
    if isinstance(value, Tensor) and value.numel() != 1:
        raise InputError(
            f"{name} has shape {tuple(value.shape)}; a reading is one number, or a Curve of several."
        )
    return value
