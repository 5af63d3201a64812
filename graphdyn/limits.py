"""How long a seed trains, and when it is evaluated on the way: by epochs, or by a budget that methods share."""

from __future__ import annotations

from dataclasses import dataclass

from graphdyn.config import Config
from graphdyn.seed_state import SeedState

# Epochs of a seed that a budget alone ends: more than anybody trains, and keys of epochs are 32 bits wide.
ENDLESS = 2**31 - 1
_THOUSAND = 1000


@dataclass(frozen=True)
class Limits:
    """Where a seed ends: at the first limit that is reached, in the middle of an epoch too.

    Every limit is checked after a step, which is done whole: edges, bytes and seconds end at most one step
    beyond theirs, steps and epochs exactly at it.

    Attributes:
        most: Of each quantity that is limited, by name: ``steps``, ``edges``, ``seconds`` or ``bytes``.
        evaluations: How many, evenly along what is limited; ``None``: the configuration counts epochs.
        every: Epochs between evaluations in that case.
        per_epoch: Steps of an epoch.
    """

    most: dict[str, int | float]
    evaluations: int | None
    every: int
    per_epoch: int

    @classmethod
    def of(cls, config: Config, per_epoch: int) -> Limits:
        """Those of a configuration, where an epoch has so many steps."""
        most = dict(config.limits)
        if config.last_epoch is not None:
            steps = config.last_epoch * per_epoch
            most["steps"] = min(steps, most.get("steps", steps))
        return cls(most, config.evaluations, config.evaluate_every, per_epoch)

    @property
    def epochs(self) -> range:
        """The epochs that a loader must be ready to serve."""
        steps = self.most.get("steps")
        return range(ENDLESS if steps is None else -(-int(steps) // self.per_epoch))

    def reached(self, at: SeedState) -> bool:
        """Whether the seed ends here."""
        return any(used >= most for used, most in self._used(at))

    def marks(self, at: SeedState) -> int:
        """How many evaluations should have been by now; 0 where epochs are counted."""
        return 0 if self.evaluations is None else self._parts(at, self.evaluations)

    def due(self, at: SeedState) -> bool:
        """Whether to evaluate after the step that was just done; always after the last."""
        if self.evaluations is not None:
            return self.marks(at) > at.marks
        whole, rest = divmod(at.step, self.per_epoch)
        return (not rest and whole % self.every == 0) or self.reached(at)

    @property
    def total(self) -> int:
        """Units of progress of a whole seed: its steps where they are known, else parts of a thousand."""
        return int(self.most["steps"]) if set(self.most) == {"steps"} else _THOUSAND

    def done(self, at: SeedState) -> int:
        """How many of these units are done."""
        return self._parts(at, self.total)

    def _used(self, at: SeedState) -> list[tuple[int | float, int | float]]:
        """Of each limit, how much is used, and the limit."""
        used = {"steps": at.step, "edges": at.edges, "seconds": at.trained, "bytes": at.bytes}
        return [(used[name], most) for name, most in self.most.items()]

    def _parts(self, at: SeedState, parts: int) -> int:
        """Whole parts of the limit that is nearest; exact for counts."""
        return min(parts, max(int(used * parts // most) for used, most in self._used(at)))
