"""Published figures: rows of the table of experiments/accuracy, run from their recipe and judged."""

from __future__ import annotations

from dataclasses import dataclass

from graphdyn.config import Config


@dataclass(frozen=True)
class Row:
    """One published figure and how it is measured here.

    Attributes:
        config: The whole recipe; the number of seeds included.
        published: The figure as its source prints it, in per cent.
        source: Who published it.
        band: Lowest and highest mean, in per cent, that count as reproduced; ``None``: reported only.
        against: Name of the row whose seeds are paired with these.
        gain: Least mean gain over that row, in points; ``None``: reported only.
        note: What a reader must know to compare.
    """

    config: Config
    published: str
    source: str
    band: tuple[float, float] | None = None
    against: str | None = None
    gain: float | None = None
    note: str = ""
