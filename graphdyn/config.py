"""Config: everything that decides a run, as one flat frozen dataclass; flags, TOML and Python agree.

Imports nothing heavy: the command line must answer before torch is loaded.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from graphdyn.errors import InputError, unknown

# What says where and how often to write, not what to compute: two runs that differ only here are the same.
EXECUTION_ONLY = frozenset(
    {"out", "data_root", "checkpoint_seconds", "workers", "prefetch", "sinks"}
)

BUDGETS = ("steps", "edges", "seconds", "bytes")
EPOCHS = 200


@dataclass(frozen=True)
class Config:
    """One run: a model on a data set, over several seeds.

    Fields that are ``None`` take the default of the data set, model, optimiser or schedule they belong to.
    """

    dataset: str = "cora"
    """Data set name (`graphdyn data list`)."""
    split: str | None = None
    """Split name; a family such as geom-gcn or random-20x500x1000 takes another member each seed."""
    features: Literal["raw", "row", "binary"] = "raw"
    """row: divide each node's features by their sum, as Kipf & Welling and PyG's NormalizeFeatures do;
    binary: set them to 0 and 1 first."""
    data_root: Path | None = None
    """Folder of raw files; else $GRAPHDYN_DATA, else the user's cache folder."""

    model: str = "gcn"
    """mlp, sgc, gcn, sage, gat, gatv2, gcnii, appnp or graph-unet."""
    hidden: int = 64
    """Width of hidden layers (for gat: of all heads together)."""
    layers: int = 2
    """Message-passing layers (for mlp and appnp: dense layers; for graph-unet: levels of pooling)."""
    norm: str = "none"
    """none, batch, weighted-batch (sampled rows stand for the whole graph), layer, graph or pair."""
    skip: str = "none"
    """none, identity, linear, dense-cat, dense-max or initial."""
    order: str = "post"
    """post: conv, norm, activation; pre: norm, activation, conv."""
    activation: str | None = None
    """relu, elu or none (the linear GNN); by default the model's own."""
    head: str | None = None
    """conv: the last convolution gives the classes; linear: a linear layer after the last one."""
    dropout: float = 0.5
    """On hidden states."""
    input_dropout: float = 0.0
    """On features."""
    edge_dropout: float = 0.0
    """On edge values, or on attention coefficients."""
    model_options: dict[str, bool | int | float | str] = field(default_factory=dict)
    """What only this model takes, for example: heads 8, aggregator max, alpha 0.1, theta 0.5, hops 10."""

    preset: str | None = None
    """A published method by name: vr-gcn, vr-gcn-cvd, vr-gcn-pp, gas, graphfm-ib, graphfm-ob, rest, lmc, mvs,
    fresh, importance, bandit, svrg, spider, saga, sgcn+ or sgcn++. Sampler and memory are then its own,
    unless named as well (docs/variance_reduction.md)."""
    sampler: str | None = None
    """What a step sees; None: the preset's, else full. Known: full (the whole graph), neighbor, neighbor-weighted,
    bandit, labor, fastgcn, ladies, pladies, layerwise-desraj, cluster, node, saint-node, saint-edge, saint-walk, shadow, ibmb or induced (docs/samplers.md)."""
    batch_size: int | None = None
    """Seed nodes a step; None: the sampler's own, or all training nodes where there are fewer."""
    fanouts: str | tuple[int, ...] | None = None
    """Neighbours a target, from the seeds outwards, for example 15,10,5; -1 is all; one number serves all."""
    sampler_options: dict[str, bool | int | float | str] = field(default_factory=dict)
    """What only this sampler takes, for example: replace true, estimator hajek, inductive true."""
    memory: str | None = None
    """What outlives a step besides parameters: history, cvd, graphfm, lmc, mvs, fresh, importance, bandit,
    svrg, spider, saga, output or preprocess; several are joined by +. None: the preset's, if any."""
    memory_options: dict[str, bool | int | float | str] = field(default_factory=dict)
    """What these memories take, for example: mode control, dtype bfloat16."""
    regularizer: str | None = None
    """What is minimised beside the loss of a batch: graphmix (docs/regularizers.md). None: nothing."""
    regularizer_options: dict[str, bool | int | float | str] = field(default_factory=dict)
    """What only this regularizer takes, for example: gamma 1, mode joint, mix_layers 0,1."""
    workers: int = 2
    """Threads that sample and gather ahead of training; 0: in the training thread. Never changes a number."""
    prefetch: int = 4
    """Batches that are made or wait at a time."""

    optimizer: str = "adam"
    """Any optimiser of torch.optim that needs no closure."""
    lr: float = 0.01
    """Learning rate."""
    weight_decay: float = 5e-4
    """Weight decay of every parameter group not named below."""
    weight_decay_for: dict[str, float] = field(default_factory=dict)
    """Weight decay by parameter group, for example: first 5e-4 (Kipf & Welling decay only that one)."""
    optimizer_options: dict[str, bool | int | float | str] = field(default_factory=dict)
    """Other arguments of the optimiser, for example: momentum 0.9."""
    schedule: str | None = None
    """Any scheduler of torch.optim.lr_scheduler by name, stepped once an epoch."""
    schedule_options: dict[str, bool | int | float | str] = field(default_factory=dict)
    """Its arguments, for example: T_max 200."""

    instruments: str | None = None
    """What to measure while training: light, standard, sampler, or names of instruments joined by +
    (docs/instruments.md). Measuring never changes training."""
    instrument_options: dict[str, bool | int | float | str] = field(default_factory=dict)
    """By name and option, for example: sampler_mse.m 4, time_to_target.targets 0.8."""
    budget: float | None = None
    """Share of training time that instruments may take, for example 0.05; None: they measure as scheduled."""
    measure_every: int | None = None
    """Steps between two measurements of instruments that leave it open; None: as the budget allows."""

    epochs: int | None = None
    """Most epochs a seed; None: 200, or as many as a budget below allows."""
    max_steps: int | None = None
    """Budget of a seed in optimiser steps. Of several budgets the first that is reached ends the seed, in the
    middle of an epoch too."""
    max_edges: int | None = None
    """Budget in edges that messages went along, forward; at most one step beyond it."""
    max_seconds: float | None = None
    """Budget in seconds of training as recorded: compute, memory and waiting for batches, and neither
    preparation nor evaluation nor instruments; at most one step beyond it."""
    max_bytes: int | None = None
    """Budget in bytes of features gathered; at most one step beyond it."""
    patience: int | None = None
    """Stop after this many evaluations without a better validation value; None: never."""
    select: Literal["metric", "loss"] = "metric"
    """What on the validation nodes picks the epoch that is reported; the first of equals wins."""
    evaluate_every: int = 1
    """Epochs between evaluations."""
    evaluations: int | None = None
    """So many evaluations a seed instead, evenly along its budget or its epochs, the last at the end; fewer
    where steps are larger than what lies between two."""
    statistics: Literal["auto", "running", "population"] = "auto"
    """Batch norm in evaluation: running averages of training, or statistics of the whole graph taken
    anew; auto: those of the whole graph wherever a sampler is at work."""
    evaluate_chunk: int | None = None
    """Evaluate layer by layer, so many nodes at a time, for graphs whose states don't fit; None: at once."""
    seeds: int = 1
    """How many seeds."""
    first_seed: int = 0
    """The first seed; the others follow."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: autocast; parameters stay float32."""
    deterministic: bool = False
    """Ask torch for deterministic algorithms, and fail where there is none."""
    threads: int | None = None
    """CPU threads; None: torch's own choice."""

    out: Path | None = None
    """Run folder; None: runs/<dataset>-<model>-<id>."""
    checkpoint_seconds: float = 30.0
    """Seconds between checkpoints; 0: after every step. What others can read of a run is as old."""
    sinks: str | None = None
    """Where numbers go besides: tensorboard, event files under tensorboard/ in the run folder. Changes none."""

    def __post_init__(self) -> None:
        if isinstance(self.fanouts, (int, tuple, list)) and not isinstance(self.fanouts, bool):
            fanouts = [self.fanouts] if isinstance(self.fanouts, int) else self.fanouts
            # One form, whoever gives them: the same run has the same id.
            object.__setattr__(self, "fanouts", ",".join(map(str, fanouts)))
        _check(self)

    def canonical(self) -> dict[str, Any]:
        """The configuration as plain JSON values, in field order."""
        plain = {
            name: str(value) if isinstance(value, Path) else value
            for name, value in asdict(self).items()
        }
        return plain | {"epochs": self.last_epoch}

    @property
    def limits(self) -> dict[str, int | float]:
        """The budgets that are given, by ``steps``, ``edges``, ``seconds`` and ``bytes``."""
        given = {name: getattr(self, f"max_{name}") for name in BUDGETS}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def last_epoch(self) -> int | None:
        """Most epochs a seed; ``None`` where only a budget ends it."""
        return EPOCHS if self.epochs is None and not self.limits else self.epochs

    @property
    def id(self) -> str:
        """First 16 hex digits of the SHA-256 of everything that decides the numbers."""
        identity = {k: v for k, v in self.canonical().items() if k not in EXECUTION_ONLY}
        text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def differences(self, other: dict[str, Any]) -> list[str]:
        """Where another canonical configuration decides otherwise, as ``name: theirs -> ours``.

        Fields that it lacks were not there when it was written, and have their defaults.
        """
        theirs = Config().canonical() | other
        return [
            f"{name}: {theirs[name]!r} -> {value!r}"
            for name, value in self.canonical().items()
            if name not in EXECUTION_ONLY and theirs[name] != value
        ]

    @property
    def folder(self) -> Path:
        """Where the run is written."""
        return self.out or Path("runs") / f"{self.dataset}-{self.model}-{self.id[:8]}"

    @classmethod
    def from_dict(cls, values: dict[str, Any], base: Config | None = None) -> Config:
        """A configuration from plain values, over ``base`` or the defaults.

        Raises:
            InputError: If a name is unknown or a value has the wrong type.
        """
        names = [f.name for f in fields(cls)]
        for name in values:
            if name not in names:
                raise unknown("configuration field", name, names)
        paths = {
            k: Path(v) for k, v in values.items() if k in {"data_root", "out"} and v is not None
        }
        return replace(base or cls(), **{**values, **paths})

    @classmethod
    def from_toml(cls, path: str | Path) -> Config:
        """A configuration from a TOML file with the field names of this class at its top level.

        Raises:
            InputError: If the file cannot be read or does not fit.
        """
        try:
            return cls.from_dict(tomllib.loads(Path(path).read_text()))
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}.") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path} is not valid TOML: {error}.") from None


_AT_LEAST_ONE = ("hidden", "layers", "evaluate_every", "seeds", "prefetch")
_AT_LEAST_ONE_IF_GIVEN = (
    "batch_size",
    "measure_every",
    "epochs",
    "max_steps",
    "max_edges",
    "max_bytes",
    "evaluations",
    "evaluate_chunk",
    "patience",
    "threads",
)
_PROBABILITIES = ("dropout", "input_dropout", "edge_dropout")
_CHOICES = {
    "features": ("raw", "row", "binary"),
    "select": ("metric", "loss"),
    "precision": ("float32", "bfloat16"),
    "statistics": ("auto", "running", "population"),
}
_KINDS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "bool": (bool,),
    "Path": (Path,),
    "dict": (dict,),
    "Literal": (str,),
}


def _check(config: Config) -> None:
    for spec in fields(config):
        _check_type(spec.name, str(spec.type), getattr(config, spec.name))
    for name in _AT_LEAST_ONE:
        if getattr(config, name) < 1:
            raise InputError(f"{name} is {getattr(config, name)}; it must be at least 1.")
    for name in _PROBABILITIES:
        if not 0 <= getattr(config, name) < 1:
            raise InputError(f"{name} is {getattr(config, name)}; it must lie in [0, 1).")
    for name, known in _CHOICES.items():
        if getattr(config, name) not in known:
            raise unknown(name, getattr(config, name), known)
    if not config.lr > 0 or config.lr == float("inf"):
        raise InputError(f"lr is {config.lr}; it must be positive and finite.")
    if config.budget is not None and not 0 < config.budget <= 1:
        raise InputError(
            f"budget is {config.budget}; it must lie in (0, 1]: a share of training time."
        )
    if not 0 <= config.first_seed < 2**31:
        raise InputError(f"first_seed is {config.first_seed}; it must lie in 0..2^31 - 1.")
    if config.workers < 0:
        raise InputError(f"workers is {config.workers}; it must be at least 0.")
    for name in _AT_LEAST_ONE_IF_GIVEN:
        value = getattr(config, name)
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}; it must be at least 1, or absent.")
    seconds = config.max_seconds
    if seconds is not None and not 0 < seconds < float("inf"):
        raise InputError(f"max_seconds is {seconds}; it must be positive and finite, or absent.")
    if config.evaluations is not None and config.evaluate_every != 1:
        raise InputError(
            f"evaluations is {config.evaluations} and evaluate_every {config.evaluate_every}; give one of them."
        )


def _check_type(name: str, annotation: str, value: Any) -> None:
    """TOML and Python callers get the same sentence as the command line would give."""
    if value is None and "None" in annotation:
        return
    kinds = _KINDS[annotation.split("[")[0].split(" ")[0]]
    wrong_bool = isinstance(value, bool) and bool not in kinds
    if wrong_bool or not isinstance(value, kinds):
        raise InputError(f"{name} is {value!r}; expected {annotation}.")
