"""graphdyn: see how a graph neural network learns, and make it learn faster.

The public door, in the order of the flow. Names are loaded on first use, so that importing the package, and
``graphdyn --help``, cost nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import graphdyn.samplers as samplers  # noqa: F401
    from graphdyn.batch import Batch as Batch
    from graphdyn.batch import Block as Block
    from graphdyn.batch import full_batch as full_batch
    from graphdyn.cache import FeatureCache as FeatureCache
    from graphdyn.config import Config as Config
    from graphdyn.data import load as load
    from graphdyn.data import row_normalize as row_normalize
    from graphdyn.errors import GraphdynError as GraphdynError
    from graphdyn.errors import InputError as InputError
    from graphdyn.estimate import Curve as Curve
    from graphdyn.estimate import Estimate as Estimate
    from graphdyn.estimate import Invalid as Invalid
    from graphdyn.evaluation import evaluate as evaluate
    from graphdyn.evaluation import predict as predict
    from graphdyn.evaluation import reestimate as reestimate
    from graphdyn.fit import check_fit as check_fit
    from graphdyn.graph import Graph as Graph
    from graphdyn.graph import Propagation as Propagation
    from graphdyn.graph import Split as Split
    from graphdyn.grid import Study as Study
    from graphdyn.grid import Tune as Tune
    from graphdyn.groups import Groups as Groups
    from graphdyn.instruments import FDT as FDT
    from graphdyn.instruments import AngularUpdate as AngularUpdate
    from graphdyn.instruments import AttentionEntropy as AttentionEntropy
    from graphdyn.instruments import ByDegree as ByDegree
    from graphdyn.instruments import ConservedQuantity as ConservedQuantity
    from graphdyn.instruments import DistanceFromInit as DistanceFromInit
    from graphdyn.instruments import EffectiveLR as EffectiveLR
    from graphdyn.instruments import EmbeddingError as EmbeddingError
    from graphdyn.instruments import GradFlow as GradFlow
    from graphdyn.instruments import GradNoise as GradNoise
    from graphdyn.instruments import Instrument as Instrument
    from graphdyn.instruments import LinearRateBound as LinearRateBound
    from graphdyn.instruments import LossIntegral as LossIntegral
    from graphdyn.instruments import LossParts as LossParts
    from graphdyn.instruments import Need as Need
    from graphdyn.instruments import NoiseScale as NoiseScale
    from graphdyn.instruments import NoiseTests as NoiseTests
    from graphdyn.instruments import NormGap as NormGap
    from graphdyn.instruments import PathLength as PathLength
    from graphdyn.instruments import PLConstant as PLConstant
    from graphdyn.instruments import RateFit as RateFit
    from graphdyn.instruments import SamplerAudit as SamplerAudit
    from graphdyn.instruments import SamplerMSE as SamplerMSE
    from graphdyn.instruments import Smoothness as Smoothness
    from graphdyn.instruments import Staleness as Staleness
    from graphdyn.instruments import SymmetryMap as SymmetryMap
    from graphdyn.instruments import TailIndex as TailIndex
    from graphdyn.instruments import TimeToTarget as TimeToTarget
    from graphdyn.instruments import TrustRatio as TrustRatio
    from graphdyn.instruments import Units as Units
    from graphdyn.instruments import UpdateRatio as UpdateRatio
    from graphdyn.instruments import build_instruments as build_instruments
    from graphdyn.keys import Key as Key
    from graphdyn.layerwise import predict_layerwise as predict_layerwise
    from graphdyn.loader import Loader as Loader
    from graphdyn.loss import node_loss as node_loss
    from graphdyn.models import APPNP as APPNP
    from graphdyn.models import GAT as GAT
    from graphdyn.models import GCN as GCN
    from graphdyn.models import GCNII as GCNII
    from graphdyn.models import MLP as MLP
    from graphdyn.models import SAGE as SAGE
    from graphdyn.models import SGC as SGC
    from graphdyn.models import GATv2 as GATv2
    from graphdyn.models import GraphUNet as GraphUNet
    from graphdyn.models import build as build
    from graphdyn.models import label_propagation as label_propagation
    from graphdyn.node_problem import NodeProblem as NodeProblem
    from graphdyn.optim import build_optimizer as build_optimizer
    from graphdyn.optim import build_schedule as build_schedule
    from graphdyn.presets import Method as Method
    from graphdyn.presets import method as method
    from graphdyn.problem import FunctionProblem as FunctionProblem
    from graphdyn.problem import Problem as Problem
    from graphdyn.pyg_loader import PygLoader as PygLoader
    from graphdyn.pyg_problem import PygProblem as PygProblem
    from graphdyn.recorder import Recorder as Recorder
    from graphdyn.runner import run as run
    from graphdyn.samplers import Full as Full
    from graphdyn.samplers import Neighbor as Neighbor
    from graphdyn.schedule import At as At
    from graphdyn.schedule import Auto as Auto
    from graphdyn.schedule import Epoch as Epoch
    from graphdyn.schedule import Every as Every
    from graphdyn.schedule import LogSpaced as LogSpaced
    from graphdyn.schedule import When as When
    from graphdyn.sinks import FolderSink as FolderSink
    from graphdyn.sinks import Sink as Sink
    from graphdyn.sinks import Tee as Tee
    from graphdyn.sinks import TensorBoardSink as TensorBoardSink
    from graphdyn.sinks import WandbSink as WandbSink
    from graphdyn.snapshot import Snapshot as Snapshot
    from graphdyn.sparse import CSC as CSC
    from graphdyn.sparse import Sparse as Sparse
    from graphdyn.step import Step as Step
    from graphdyn.step import full_batches as full_batches
    from graphdyn.step import train as train
    from graphdyn.study import run_study as run_study
    from graphdyn.symmetry import Symmetry as Symmetry

# Where names live, in the order of the flow; above are the same ones for type checkers.
_HOME = {
    "errors": "GraphdynError InputError",
    "keys": "Key",
    "sparse": "CSC Sparse",
    "graph": "Graph Propagation Split",
    "data": "load row_normalize",
    "batch": "Batch Block full_batch",
    "samplers": "Full Neighbor",
    "cache": "FeatureCache",
    "loader": "Loader",
    "pyg_loader": "PygLoader",
    "models": "APPNP GAT GATv2 GCN GCNII GraphUNet MLP SAGE SGC build label_propagation",
    "fit": "check_fit",
    "loss": "node_loss",
    "layerwise": "predict_layerwise",
    "evaluation": "evaluate predict reestimate",
    "optim": "build_optimizer build_schedule",
    "presets": "Method method",
    "step": "Step full_batches train",
    "estimate": "Curve Estimate Invalid",
    "schedule": "At Auto Epoch Every LogSpaced When",
    "groups": "Groups",
    "problem": "FunctionProblem Problem",
    "node_problem": "NodeProblem",
    "pyg_problem": "PygProblem",
    "symmetry": "Symmetry",
    "snapshot": "Snapshot",
    "instruments": (
        "AngularUpdate AttentionEntropy ByDegree ConservedQuantity DistanceFromInit "
        "EffectiveLR EmbeddingError FDT GradFlow GradNoise Instrument LinearRateBound "
        "LossIntegral LossParts Need NoiseScale NoiseTests NormGap PLConstant PathLength RateFit "
        "SamplerAudit SamplerMSE Smoothness Staleness SymmetryMap TailIndex TimeToTarget "
        "TrustRatio Units UpdateRatio build_instruments"
    ),
    "sinks": "FolderSink Sink Tee TensorBoardSink WandbSink",
    "recorder": "Recorder",
    "config": "Config",
    "runner": "run",
    "grid": "Study Tune",
    "study": "run_study",
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names.split()}

__all__ = [*_MODULE_OF]  # pyright: ignore[reportUnsupportedDunderAll]


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
