"""From a configuration to its parts: model, method and instruments."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from graphdyn.config import Config
from graphdyn.errors import InputError
from graphdyn.graph import Graph
from graphdyn.instruments import Instrument, build_instruments
from graphdyn.models import APPNP, GraphUNet, Stack, build
from graphdyn.parallel import World
from graphdyn.presets import Method, Preset, assemble_method, named, split
from graphdyn.regularizers import Regularizer
from graphdyn.regularizers import build as build_regularizer
from graphdyn.samplers.shares import largest_share

_MODEL_FIELDS = (
    "hidden",
    "layers",
    "norm",
    "skip",
    "order",
    "activation",
    "head",
    "dropout",
    "input_dropout",
    "edge_dropout",
)


def model_of(config: Config, graph: Graph, seed: int) -> Stack | APPNP | GraphUNet:
    """The model with the weights of a seed.

    Raises:
        InputError: If options do not fit.
    """
    options = {name: getattr(config, name) for name in _MODEL_FIELDS}
    options = {name: value for name, value in options.items() if value is not None}
    _once(config.model_options, options.keys() | {"seed"}, "model_options")
    options |= config.model_options
    return build(config.model, graph.num_features, graph.num_classes, seed=seed, **options)


def names_of(config: Config) -> Preset:
    """The names of sampler and memory."""
    return named(config.preset, config.sampler, config.memory)


def method_of(config: Config, graph: Graph, world: World) -> Method:
    """Sampler and memory.

    Raises:
        InputError: If options do not fit.
    """
    given = {"batch_size": config.batch_size, "fanouts": config.fanouts}
    given = {name: value for name, value in given.items() if value is not None}
    _once(config.sampler_options, given.keys(), "sampler_options")
    options = {**config.sampler_options, **given}
    method = assemble_method(names_of(config), options, config.memory_options)
    # A sampler's own batch size is meant for large graphs; only one that was asked for is an error.
    size = getattr(method.sampler, "batch_size", None)
    if "batch_size" not in options and size is not None:
        most = largest_share(method.sampler.largest_batch(graph), world)
        sampler = replace(method.sampler, batch_size=min(size, most))  # pyright: ignore
        method = replace(method, sampler=sampler)
    return method


def regularizer_of(config: Config) -> Regularizer | None:
    """What is minimised beside the loss.

    Raises:
        InputError: If the name or an option is unknown, or options come without a name.
    """
    if config.regularizer is not None:
        return build_regularizer(config.regularizer, **config.regularizer_options)
    if config.regularizer_options:
        raise InputError("regularizer_options are given without a regularizer; name one.")
    return None


def instruments_of(config: Config) -> list[Instrument]:
    """Instruments, none of them used yet.

    Raises:
        InputError: If a name is unknown.
    """
    if config.instruments is None:
        return []
    return build_instruments(config.instruments, config.instrument_options, config.measure_every)


def describe(config: Config, method: Method) -> dict[str, Any]:
    """What a summary says of a method: names, and every option in force."""
    names = names_of(config)
    memories = zip(split(names.memory), method.memories)
    extra = regularizer_of(config)
    return {
        "preset": config.preset,
        "sampler": names.sampler,
        "sampler_options": _plain(vars(method.sampler)),
        "memory": names.memory,
        "memory_options": {name: _plain(vars(recipe)) for name, recipe in memories},
        **(
            {"regularizer": config.regularizer, "regularizer_options": _plain(vars(extra))}
            if extra
            else {}
        ),
    }


def _once(options: dict[str, Any], flags: Any, field: str) -> None:
    twice = sorted(flags & options.keys())
    if twice:
        raise InputError(f"{field} names {', '.join(twice)}, which has a flag of its own.")


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    """A recipe's fields as JSON has them."""
    return {n: list(v) if isinstance(v, tuple) else v for n, v in options.items()}
