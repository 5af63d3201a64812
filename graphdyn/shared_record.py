"""The run folder of several ranks: rank 0 writes, and all know what it reads."""

from __future__ import annotations

import json
from typing import Any

from torch import Tensor

from graphdyn.config import Config
from graphdyn.journal import Clock, Event, Line, Metric
from graphdyn.parallel import World
from graphdyn.record import Record


def open_record(config: Config, world: World) -> Record:
    """See :meth:`Record.open`; ranks call together, and fail together."""
    return Record.open(config) if world.alone else SharedRecord(config, world)


class SharedRecord(Record):
    """A run folder that rank 0 has open. :meth:`load` and :meth:`summary` are exchanges.

    Args:
        config: Of the run.
        world: Who trains.
    """

    def __init__(self, config: Config, world: World):
        self.folder, self.config, self.world = config.folder, config, world
        self._own: Record | None = None
        with world.agreed():
            if world.leads:
                self._own = Record.open(config)

    def close(self) -> None:
        """See :meth:`Record.close`."""
        if self._own is not None:
            self._own.close()

    def add(self, clock: Clock, row: Metric | Line | Event) -> None:
        """See :meth:`Record.add`."""
        if self._own is not None:
            self._own.add(clock, row)

    def save(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """See :meth:`Record.save`."""
        if self._own is not None:
            self._own.save(tensors, state)

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """See :meth:`Record.load`; what rank 0 reads, on all ranks."""
        from safetensors.torch import load, save

        found: tuple[dict[str, Tensor], dict[str, Any]] | None = None
        with self.world.agreed():
            found = self._own.load() if self._own is not None else None
        state = self._told(None if found is None else found[1])
        if state is None:
            return None
        tensors = self.world.tell(lambda: save(found[0] if found else {}))
        return (load(tensors) if found is None else found[0]), state

    def save_weights(self, seed: int, tensors: dict[str, Tensor]) -> None:
        """See :meth:`Record.save_weights`."""
        if self._own is not None:
            self._own.save_weights(seed, tensors)

    def summary(self) -> dict[str, Any] | None:
        """See :meth:`Record.summary`."""
        return self._told(self._own.summary() if self._own is not None else None)

    def finish(self, summary: dict[str, Any]) -> None:
        """See :meth:`Record.finish`."""
        if self._own is not None:
            self._own.finish(summary)

    def _told(self, document: Any) -> Any:
        """A JSON document of rank 0."""
        return json.loads(self.world.tell(lambda: json.dumps(document).encode()))
