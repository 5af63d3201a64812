"""TrustRatio: by how much LARS and LAMB would stretch the step of each group of parameters.

Valid for any model; what is measured is what these methods would do, not what the optimiser at hand does. LARS (You,
Gitman & Ginsburg 2017, equation 6) divides by gradient and decay, LAMB (You et al. 2020, algorithm 2, phi the identity)
by the direction of Adam. In both, groups are single layers; here they are the groups of the recorder.
"""

from __future__ import annotations

from graphdyn.estimate import Reading
from graphdyn.instruments.instrument import Instrument, Need
from graphdyn.snapshot import Snapshot


class TrustRatio(Instrument):
    """|w| over the length of a direction, at the weights before the last step.

    ================  ====  ==================================================================================
    reading           unit  what it is
    ================  ====  ==================================================================================
    ``lars``, group   1     ``|w| / (|g| + lambda |w|)``, g the gradient; LARS multiplies it by its own constant
    ``step``, group   1     ``eta |w| / |w' - w|``: of the direction the optimiser took, its decay included; under
                            AdamW (and Adam without decay) the trust ratio of LAMB
    ================  ====  ==================================================================================

    Where nothing moves (no gradient, no decay) the ratios are infinite. The options of a group are those of its
    first parameter. No prediction: equal ratios over groups are what LARS and LAMB enforce.
    """

    needs = Need.UPDATE

    def measure(self, s: Snapshot) -> Reading:
        """See the class."""
        assert s.before is not None
        weights = s.groups.dots(s.before, s.before)
        grads = s.groups.dots(s.grad, s.grad)
        steps = s.groups.dots(s.update, s.update)
        found: dict = {}
        for name, options in s.settings.items():
            size, decay = weights[name].sqrt(), options.get("weight_decay", 0.0)
            found["lars", name] = size / (grads[name].sqrt() + decay * size)
            if "lr" in options:
                found["step", name] = options["lr"] * size / steps[name].sqrt()
        return found
