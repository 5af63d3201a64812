"""Everything that a configuration names is looked up and put together, without reading data."""

from __future__ import annotations

from functools import cache

from graphdyn.assembly import instruments_of, method_of, model_of, regularizer_of
from graphdyn.config import Config
from graphdyn.data import cards
from graphdyn.data.loader import resolve_split
from graphdyn.data.synthetic import csbm
from graphdyn.errors import InputError
from graphdyn.fit import check_fit
from graphdyn.graph import Graph
from graphdyn.optim import build_optimizer, build_schedule
from graphdyn.parallel import World


def precheck(config: Config) -> None:
    """Refuse what could never run; what depends on the graph itself shows only when it is read.

    Raises:
        InputError: If a name or an option is not known, or parts do not fit each other.
    """
    card = cards.card(config.dataset)
    if resolve_split(card, config.split, config.first_seed) is None:
        raise InputError(f"{config.dataset} has no split of its own; name one under split.")
    model = model_of(config, _toy(), 0)
    method = method_of(config, _toy(), World())
    check_fit(method.sampler, model)
    method.check(model)
    regularizer_of(config)
    optimizer = build_optimizer(
        model,
        config.optimizer,
        lr=config.lr,
        weight_decay=config.weight_decay,
        weight_decay_for=config.weight_decay_for,
        **config.optimizer_options,
    )
    build_schedule(optimizer, config.schedule, **config.schedule_options)
    instruments_of(config)


@cache
def _toy() -> Graph:
    """Any small graph: models need a width, samplers a number of nodes."""
    return csbm(64, 3.0, 2, 4, split="random-0.5-0.25-0.25")
