"""Tuning: learning rate and batch size of a cell, chosen on validation nodes, with equal trials for each cell.

Every cell gets as many trials from the same seeded search (optuna's TPE), on seeds that the study does not
use. A search can be stopped anywhere: the trials that lie in its file are told again, and it goes on as if it
had never stopped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graphdyn.assembly import names_of
from graphdyn.config import Config
from graphdyn.errors import GraphdynError, InputError, Interrupted, LockedError
from graphdyn.files import write_json
from graphdyn.grid import TUNING_SEED, Tune
from graphdyn.keys import Key
from graphdyn.recipes import option_kinds
from graphdyn.samplers import SAMPLERS


@dataclass(frozen=True)
class Search:
    """What to tune.

    Attributes:
        cell: Name of the cell.
        slug: Of the cell.
        config: Of the cell.
        tune: How.
        folder: Of the study.
    """

    cell: str
    slug: str
    config: Config
    tune: Tune
    folder: Path

    @property
    def path(self) -> Path:
        """The file with all trials and, at the end, the best."""
        return self.folder / "tuning" / f"{self.slug}.json"

    @property
    def best(self) -> dict[str, Any] | None:
        """What was chosen, by field; ``None`` while the search lasts."""
        return self._document().get("best")

    def trials(self) -> list[dict[str, Any]]:
        """Those that are done: number, params, value on validation nodes, or the reason why there is none."""
        return self._document()["trials"]

    def _document(self) -> dict[str, Any]:
        return json.loads(self.path.read_text()) if self.path.exists() else {"trials": []}

    def space(self) -> dict[str, Any]:
        """Optuna's distributions, by field; a sampler without a batch size has none to choose."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution

        found: dict[str, Any] = {}
        if self.tune.lr is not None:
            found["lr"] = FloatDistribution(*self.tune.lr, log=True)
        sampler = SAMPLERS[names_of(self.config).sampler]
        if self.tune.batch_size and "batch_size" in option_kinds(sampler):
            found["batch_size"] = CategoricalDistribution(self.tune.batch_size)
        return found

    def trial(self, number: int, params: dict[str, Any]) -> Config:
        """The run of a trial."""
        return replace(
            self.config,
            **params,
            seeds=self.tune.seeds,
            first_seed=TUNING_SEED,
            out=self.folder / "tuning" / self.slug / f"trial-{number}",
        )


def check_optuna() -> None:
    """Raise :class:`InputError` with advice if optuna is not installed."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise InputError(
            "tuning needs optuna, which is not installed; pip install 'graphdyn[study]'."
        ) from None


def tune(search: Search, train: Callable[[Config], dict[str, Any]]) -> dict[str, Any]:
    """Do the trials that are left, and choose.

    Args:
        search: What to tune.
        train: From a configuration to the summary of its run.

    Returns:
        The best values by field.

    Raises:
        GraphdynError: If no trial came to an end.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seed = Key(TUNING_SEED).fold("tuning").bits % 2**32
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    space, done = search.space(), search.trials()
    search.path.parent.mkdir(parents=True, exist_ok=True)
    for number in range(search.tune.trials):
        trial = study.ask(space)
        if number == len(done):
            done.append(_try(search, number, trial.params, train))
            write_json(search.path, {"cell": search.cell, "trials": done})
        value = done[number]["value"]
        failed = optuna.trial.TrialState.FAIL if value is None else None
        study.tell(trial, value, state=failed)
    best = _choose(search, done)
    write_json(search.path, {"cell": search.cell, "trials": done, "best": best})
    return best


def _try(
    search: Search, number: int, params: dict[str, Any], train: Callable[[Config], dict[str, Any]]
) -> dict[str, Any]:
    """A learning rate that explodes is a trial like any other."""
    entry = {"number": number, "params": params, "seeds": search.tune.seeds, "value": None}
    try:
        validation = train(search.trial(number, params))["validation"]
    except (InputError, Interrupted) as error:
        if isinstance(error, (Interrupted, LockedError)):
            raise
        return {**entry, "reason": str(error)}
    except GraphdynError as error:
        return {**entry, "reason": str(error)}
    if validation is None:
        raise InputError(f"{search.config.dataset} has no validation nodes to tune on.")
    return {**entry, "value": validation["mean"]}


def _choose(search: Search, trials: list[dict[str, Any]]) -> dict[str, Any]:
    """The first of the best."""
    known = [t for t in trials if t["value"] is not None and math.isfinite(t["value"])]
    if not known:
        raise GraphdynError(
            f"none of {len(trials)} trials of {search.cell} came to an end; the last said: "
            f"{trials[-1]['reason']}"
        )
    return max(known, key=lambda t: t["value"])["params"]
