"""Spy: an instrument that keeps what it was shown, for tests of whoever shows it."""

from graphdyn.instruments import Instrument, Need
from graphdyn.schedule import Every


class Spy(Instrument):
    """Attributes: seen: a dictionary a measurement, of the fields of a snapshot by name."""

    needs = Need.UPDATE | Need.LOSSES | Need.MICRO
    every = Every(1)

    def __init__(self, **options):
        super().__init__(**options)
        self.seen = []

    def measure(self, s):
        fields = ("step", "epoch", "micro", "modified", "losses", "scores", "settings", "before")
        kept = {name: getattr(s, name) for name in fields}
        kept["losses"] = [(step, float(loss)) for step, loss in s.losses]
        grad = s.grad.clone()
        self.seen.append({**kept, "grad": grad, "weights": s.weights, "update": s.update})
        return {"step": s.step, "move": s.update.norm(), "grad": grad.norm()}
