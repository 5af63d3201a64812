"""PathLength: how far the weights have travelled, and how straight.

Valid for any model and optimiser. It adds the distances between the weights at which it measures: measured at every step
that is the length of the path, measured every k steps a lower bound of it, as a chord is no longer than its arc.
Closed form; the random walk has a ratio of distance to length that falls as one over the square root of the steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from graphdyn.estimate import Reading
from graphdyn.groups import total
from graphdyn.instruments.instrument import Instrument
from graphdyn.schedule import Auto
from graphdyn.snapshot import Snapshot


class PathLength(Instrument):
    """Length of the path since the first measurement.

    ================================  ====  ===================================================================
    reading                           unit  what it is
    ================================  ====  ===================================================================
    ``length``, group and in total    |w|   ``sum_t |w_t - w_t-1|`` over measurements t; the total is that of the
                                            whole vector, not the sum over groups
    ``straight``, group and in total  1     distance between the ends over the length, 1 for a straight line; from
                                            the second measurement on, NaN where nothing moved
    ``chord``                         step  steps between the last two measurements: more than 1 makes the
                                            length a lower bound
    ================================  ====  ===================================================================
    """

    every = Auto(steps=1)

    def __init__(self, **options: Any):
        super().__init__(**options)
        self._first: Tensor | None = None
        self._last: Tensor | None = None
        self._step = 0
        self._lengths: dict[str, Tensor] = {}

    def measure(self, s: Snapshot) -> Reading:
        """See the class."""
        weights = s.weights
        if self._first is None or self._last is None:
            self._first = self._last = weights
            self._step = s.step
            self._lengths = {k: v.sqrt() for k, v in _squares(s, weights - weights).items()}
            return _keyed("length", self._lengths)
        ends = _squares(s, weights - self._first)
        for name, square in _squares(s, weights - self._last).items():
            self._lengths[name] = self._lengths[name] + square.sqrt()
        chord, self._last, self._step = s.step - self._step, weights, s.step
        straight = {n: ends[n].sqrt() / length for n, length in self._lengths.items()}
        return {
            **_keyed("length", self._lengths),
            **_keyed("straight", straight),
            "chord": chord,
        }

    def state(self) -> dict[str, Any]:
        """See :meth:`Instrument.state`."""
        ends = {"first": self._first, "last": self._last, "step": self._step}
        return {**ends, "lengths": dict(self._lengths)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See :meth:`Instrument.restore`."""
        self._first, self._last, self._step = state["first"], state["last"], state["step"]
        self._lengths = dict(state["lengths"])


def _squares(s: Snapshot, vector: Tensor) -> dict[str, Tensor]:
    """Squared norms by group; that of all under the empty name."""
    own = s.groups.dots(vector, vector)
    return {**own, "": total(own)}


def _keyed(what: str, values: Mapping[str, Tensor]) -> dict[str | tuple[str, str], Tensor]:
    return {(what, name) if name else what: value for name, value in values.items()}
