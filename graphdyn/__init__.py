"""graphdyn: see how a graph neural network learns, and make it learn faster.

The public door, in the order of the flow. Names are loaded on first use, so that importing the package, and
``graphdyn --help``, cost nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import graphdyn.samplers as samplers  # noqa: F401
    from graphdyn.batch import Batch, Block, full_batch
    from graphdyn.cache import FeatureCache
    from graphdyn.config import Config
    from graphdyn.data import load, row_normalize
    from graphdyn.errors import GraphdynError, InputError
    from graphdyn.estimate import Curve, Estimate, Invalid
    from graphdyn.evaluation import evaluate, predict, reestimate
    from graphdyn.fit import check_fit
    from graphdyn.graph import Graph, Propagation, Split
    from graphdyn.groups import Groups
    from graphdyn.instruments import (
        FDT,
        AngularUpdate,
        AttentionEntropy,
        ByDegree,
        ConservedQuantity,
        DistanceFromInit,
        EffectiveLR,
        EmbeddingError,
        GradFlow,
        GradNoise,
        Instrument,
        LinearRateBound,
        LossIntegral,
        Need,
        NoiseScale,
        NoiseTests,
        NormGap,
        PathLength,
        PLConstant,
        RateFit,
        SamplerAudit,
        SamplerMSE,
        Smoothness,
        Staleness,
        SymmetryMap,
        TailIndex,
        TimeToTarget,
        TrustRatio,
        Units,
        UpdateRatio,
        build_instruments,
    )
    from graphdyn.keys import Key
    from graphdyn.layerwise import predict_layerwise
    from graphdyn.loader import Loader
    from graphdyn.loss import node_loss
    from graphdyn.models import (
        APPNP,
        GAT,
        GCN,
        GCNII,
        MLP,
        SAGE,
        SGC,
        GATv2,
        build,
        label_propagation,
    )
    from graphdyn.node_problem import NodeProblem
    from graphdyn.optim import build_optimizer, build_schedule
    from graphdyn.presets import Method, method
    from graphdyn.problem import FunctionProblem, Problem
    from graphdyn.pyg_loader import PygLoader
    from graphdyn.pyg_problem import PygProblem
    from graphdyn.recorder import Recorder
    from graphdyn.runner import run
    from graphdyn.samplers import Full, Neighbor
    from graphdyn.schedule import At, Auto, Epoch, Every, LogSpaced, When
    from graphdyn.sinks import FolderSink, Sink, Tee, TensorBoardSink, WandbSink
    from graphdyn.snapshot import Snapshot
    from graphdyn.sparse import CSC, Sparse
    from graphdyn.step import Step, full_batches, train
    from graphdyn.symmetry import Symmetry

_HOME = {
    "errors": (
        "GraphdynError",
        "InputError",
    ),
    "keys": ("Key",),
    "sparse": (
        "CSC",
        "Sparse",
    ),
    "graph": (
        "Graph",
        "Propagation",
        "Split",
    ),
    "data": (
        "load",
        "row_normalize",
    ),
    "batch": (
        "Batch",
        "Block",
        "full_batch",
    ),
    "samplers": (
        "Full",
        "Neighbor",
    ),
    "cache": ("FeatureCache",),
    "loader": ("Loader",),
    "pyg_loader": ("PygLoader",),
    "models": (
        "APPNP",
        "GAT",
        "GATv2",
        "GCN",
        "GCNII",
        "MLP",
        "SAGE",
        "SGC",
        "build",
        "label_propagation",
    ),
    "fit": ("check_fit",),
    "loss": ("node_loss",),
    "layerwise": ("predict_layerwise",),
    "evaluation": (
        "evaluate",
        "predict",
        "reestimate",
    ),
    "optim": (
        "build_optimizer",
        "build_schedule",
    ),
    "presets": (
        "Method",
        "method",
    ),
    "step": (
        "Step",
        "full_batches",
        "train",
    ),
    "estimate": (
        "Curve",
        "Estimate",
        "Invalid",
    ),
    "schedule": (
        "At",
        "Auto",
        "Epoch",
        "Every",
        "LogSpaced",
        "When",
    ),
    "groups": ("Groups",),
    "problem": (
        "FunctionProblem",
        "Problem",
    ),
    "node_problem": ("NodeProblem",),
    "pyg_problem": ("PygProblem",),
    "symmetry": ("Symmetry",),
    "snapshot": ("Snapshot",),
    "instruments": (
        "AngularUpdate",
        "AttentionEntropy",
        "ByDegree",
        "ConservedQuantity",
        "DistanceFromInit",
        "EffectiveLR",
        "EmbeddingError",
        "FDT",
        "GradFlow",
        "GradNoise",
        "Instrument",
        "LinearRateBound",
        "LossIntegral",
        "Need",
        "NoiseScale",
        "NoiseTests",
        "NormGap",
        "PLConstant",
        "PathLength",
        "RateFit",
        "SamplerAudit",
        "SamplerMSE",
        "Smoothness",
        "Staleness",
        "SymmetryMap",
        "TailIndex",
        "TimeToTarget",
        "TrustRatio",
        "Units",
        "UpdateRatio",
        "build_instruments",
    ),
    "sinks": (
        "FolderSink",
        "Sink",
        "Tee",
        "TensorBoardSink",
        "WandbSink",
    ),
    "recorder": ("Recorder",),
    "config": ("Config",),
    "runner": ("run",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "GraphdynError",
    "InputError",
    "Key",
    "CSC",
    "Sparse",
    "Graph",
    "Propagation",
    "Split",
    "load",
    "row_normalize",
    "Batch",
    "Block",
    "full_batch",
    "Full",
    "Neighbor",
    "FeatureCache",
    "Loader",
    "PygLoader",
    "APPNP",
    "GAT",
    "GATv2",
    "GCN",
    "GCNII",
    "MLP",
    "SAGE",
    "SGC",
    "build",
    "label_propagation",
    "check_fit",
    "node_loss",
    "predict_layerwise",
    "evaluate",
    "predict",
    "reestimate",
    "build_optimizer",
    "build_schedule",
    "Method",
    "method",
    "Step",
    "full_batches",
    "train",
    "Curve",
    "Estimate",
    "Invalid",
    "At",
    "Auto",
    "Epoch",
    "Every",
    "LogSpaced",
    "When",
    "Groups",
    "FunctionProblem",
    "Problem",
    "NodeProblem",
    "PygProblem",
    "Symmetry",
    "Snapshot",
    "AngularUpdate",
    "AttentionEntropy",
    "ByDegree",
    "ConservedQuantity",
    "DistanceFromInit",
    "EffectiveLR",
    "EmbeddingError",
    "FDT",
    "GradFlow",
    "GradNoise",
    "Instrument",
    "LinearRateBound",
    "LossIntegral",
    "Need",
    "NoiseScale",
    "NoiseTests",
    "NormGap",
    "PLConstant",
    "PathLength",
    "RateFit",
    "SamplerAudit",
    "SamplerMSE",
    "Smoothness",
    "Staleness",
    "SymmetryMap",
    "TailIndex",
    "TimeToTarget",
    "TrustRatio",
    "Units",
    "UpdateRatio",
    "build_instruments",
    "FolderSink",
    "Sink",
    "Tee",
    "TensorBoardSink",
    "WandbSink",
    "Recorder",
    "Config",
    "run",
]


def __getattr__(name: str) -> Any:
    if name == "samplers":  # every sampler, and ``samplers.build`` by name
        return importlib.import_module("graphdyn.samplers")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'graphdyn' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"graphdyn.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
