"""UpdateRatio: how long a step is beside the weights that it moves.

Valid for any model and optimiser. For a scale-invariant set of weights this is, to leading order, the angle that they
turn by; elsewhere it is a rule of thumb (about 1e-3 a step, after Karpathy's notes on training), no prediction.
"""

from __future__ import annotations

from graphdyn.estimate import Reading
from graphdyn.groups import total
from graphdyn.instruments.instrument import Instrument, Need
from graphdyn.snapshot import Snapshot


class UpdateRatio(Instrument):
    """Length of the last step over length of the weights before it.

    ==============================  ====  ==========================================================
    reading                         unit  what it is
    ==============================  ====  ==========================================================
    ``ratio``, group and in total   1     ``|w' - w| / |w|``; exact. Infinite for weights of 0
    ``update``, group and in total  |w|   ``|w' - w|``
    ==============================  ====  ==========================================================
    """

    needs = Need.UPDATE

    def measure(self, s: Snapshot) -> Reading:
        """See the class."""
        assert s.before is not None
        steps = s.groups.dots(s.update, s.update)
        sizes = s.groups.dots(s.before, s.before)
        found: dict = {
            "ratio": (total(steps) / total(sizes)).sqrt(),
            "update": total(steps).sqrt(),
        }
        for name, step in steps.items():
            found["ratio", name] = (step / sizes[name]).sqrt()
            found["update", name] = step.sqrt()
        return found
