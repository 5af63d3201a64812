"""DistanceFromInit: how far the weights are from where they began.

Valid for any model and optimiser. Weights at the first measurement stand for the initial ones, which they are when it is
at step 0, as every schedule of multiples has it. Exact; in wide networks trained slowly the relative distance stays
small (Jacot, Gabriel & Hongler 2018), in a random walk its square grows with the steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from graphdyn.estimate import Reading
from graphdyn.groups import total
from graphdyn.instruments.instrument import Instrument
from graphdyn.snapshot import Snapshot


class DistanceFromInit(Instrument):
    """Distance and angle between the weights now and at the first measurement.

    =================================  ====  =====================================================
    reading                            unit  what it is
    =================================  ====  =====================================================
    ``distance``, group and in total   |w|   ``|w - w0|``
    ``relative``, group and in total   1     ``|w - w0| / |w0|``; infinite for groups that began at 0
    ``cosine``, group and in total     1     ``<w, w0> / (|w| |w0|)``; NaN likewise
    =================================  ====  =====================================================
    """

    def __init__(self, **options: Any):
        super().__init__(**options)
        self._first: Tensor | None = None

    def measure(self, s: Snapshot) -> Reading:
        """See the class."""
        if self._first is None:
            self._first = s.weights
        first, now, moved = self._first, s.weights, s.weights - self._first
        pairs = {
            "far": (moved, moved),
            "start": (first, first),
            "end": (now, now),
            "both": (first, now),
        }
        dots = {what: s.groups.dots(*pair) for what, pair in pairs.items()}
        found = _compare("", {what: total(parts) for what, parts in dots.items()})
        for name in s.groups.names:
            found |= _compare(name, {what: parts[name] for what, parts in dots.items()})
        return found

    def state(self) -> dict[str, Any]:
        """See :meth:`Instrument.state`."""
        return {"first": self._first}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See :meth:`Instrument.restore`."""
        self._first = state["first"]


def _compare(name: str, dots: Mapping[str, Tensor]) -> dict[str | tuple[str, str], Tensor]:
    distance, start, end = (dots[what].sqrt() for what in ("far", "start", "end"))
    found = {
        "distance": distance,
        "relative": distance / start,
        "cosine": dots["both"] / (start * end),
    }
    return {(what, name) if name else what: value for what, value in found.items()}
