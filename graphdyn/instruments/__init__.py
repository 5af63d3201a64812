"""Instruments, one quantity a file; each says when it is valid."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from graphdyn.errors import InputError, unknown
from graphdyn.instruments.angular_update import AngularUpdate
from graphdyn.instruments.attention_entropy import AttentionEntropy
from graphdyn.instruments.by_degree import ByDegree
from graphdyn.instruments.conserved_quantity import ConservedQuantity
from graphdyn.instruments.distance_from_init import DistanceFromInit
from graphdyn.instruments.effective_lr import EffectiveLR
from graphdyn.instruments.embedding_error import EmbeddingError
from graphdyn.instruments.fdt import FDT
from graphdyn.instruments.grad_flow import GradFlow
from graphdyn.instruments.grad_noise import GradNoise
from graphdyn.instruments.instrument import Instrument, Need
from graphdyn.instruments.linear_rate_bound import LinearRateBound
from graphdyn.instruments.loss_integral import LossIntegral
from graphdyn.instruments.loss_parts import LossParts
from graphdyn.instruments.noise_scale import NoiseScale
from graphdyn.instruments.noise_tests import NoiseTests
from graphdyn.instruments.norm_gap import NormGap
from graphdyn.instruments.path_length import PathLength
from graphdyn.instruments.pl_constant import PLConstant
from graphdyn.instruments.rate_fit import RateFit
from graphdyn.instruments.sampler_audit import SamplerAudit
from graphdyn.instruments.sampler_mse import SamplerMSE
from graphdyn.instruments.smoothness import Smoothness
from graphdyn.instruments.staleness import Staleness
from graphdyn.instruments.symmetry_map import SymmetryMap
from graphdyn.instruments.tail_index import TailIndex
from graphdyn.instruments.time_to_target import TimeToTarget
from graphdyn.instruments.trust_ratio import TrustRatio
from graphdyn.instruments.units import Units
from graphdyn.instruments.update_ratio import UpdateRatio
from graphdyn.recipes import read_option
from graphdyn.schedule import Auto, Every

_KINDS: tuple[type[Instrument], ...] = (
    EffectiveLR,
    AngularUpdate,
    SymmetryMap,
    ConservedQuantity,
    UpdateRatio,
    TrustRatio,
    PathLength,
    DistanceFromInit,
    FDT,
    GradNoise,
    NoiseScale,
    NoiseTests,
    SamplerMSE,
    SamplerAudit,
    TailIndex,
    RateFit,
    TimeToTarget,
    LossIntegral,
    PLConstant,
    LinearRateBound,
    Smoothness,
    Units,
    NormGap,
    AttentionEntropy,
    ByDegree,
    GradFlow,
    LossParts,
    Staleness,
    EmbeddingError,
)
INSTRUMENTS: dict[str, type[Instrument]] = {kind.name: kind for kind in _KINDS}

# What their names on the command line stand for.
PRESETS: dict[str, tuple[str, ...]] = {
    # Nothing but the step itself: no gradient beside training's.
    "light": (
        "effective_lr",
        "angular_update",
        "update_ratio",
        "path_length",
        "distance_from_init",
        "fdt",
        "loss_integral",
    ),
    "standard": (),
    # What a sampler does to the gradient and to the embeddings; dear.
    "sampler": (
        "sampler_mse",
        "sampler_audit",
        "noise_scale",
        "embedding_error",
        "staleness",
        "norm_gap",
    ),
}
# Besides, gradients and states that tell what noise and depth do.
PRESETS["standard"] = (
    *PRESETS["light"],
    "rate_fit",
    "symmetry_map",
    "conserved_quantity",
    "grad_noise",
    "noise_scale",
    "smoothness",
    "units",
    "grad_flow",
    "norm_gap",
)


def build_instruments(
    names: str, options: Mapping[str, Any] | None = None, every: int | None = None
) -> list[Instrument]:
    """Instruments by name.

    Args:
        names: Presets and names of instruments, joined by ``+``; each counts once.
        options: By name and option, for example ``{"sampler_mse.m": 4}``.
        every: Steps between two measurements of those that leave it open.

    Raises:
        InputError: If a name or an option is unknown, or an instrument cannot do without an option.
    """
    wanted: dict[str, dict[str, Any]] = {}
    for name in names.split("+"):
        if name not in INSTRUMENTS and name not in PRESETS:
            raise unknown("instrument", name, [*PRESETS, *INSTRUMENTS])
        wanted |= {member: {} for member in PRESETS.get(name, (name,))}
    for place, value in (options or {}).items():
        name, _, option = place.partition(".")
        if name not in wanted:
            raise unknown("instrument with options", name, wanted)
        wanted[name][option] = value
    found = [_build(name, given) for name, given in wanted.items()]
    for instrument in found:
        if every is not None and isinstance(instrument.every, Auto):
            instrument.every = Every(every)
    return found


def _build(name: str, options: Mapping[str, Any]) -> Instrument:
    kind = INSTRUMENTS[name]
    named = inspect.signature(kind).parameters.values()
    named = {p.name: p for p in named if p.kind is not p.VAR_KEYWORD}
    levels = {n: f"{type(v).__name__} | None" for level in kind.levels for n, v in level.items()}
    known = levels | {n: str(p.annotation) for n, p in named.items()}
    for option in options:
        if option not in known:
            raise unknown(f"option of the instrument {name}", option, known)
    missing = [n for n, p in named.items() if p.default is p.empty and n not in options]
    if missing:
        raise InputError(f"the instrument {name} needs {missing[0]}; give {name}.{missing[0]}.")
    return kind(**{n: read_option(n, known[n], v) for n, v in options.items()})


__all__ = ["INSTRUMENTS", "PRESETS", "Instrument", "Need", "build_instruments"]
