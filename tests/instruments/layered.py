"""A graph, models on it and moments of their training, for instruments that look between layers."""

import cases
import numpy as np
import torch
import torch_geometric.nn as pyg

import graphdyn as gd
from graphdyn.estimate import Estimate
from graphdyn.groups import Groups
from graphdyn.node_problem import NodeProblem
from graphdyn.pyg_problem import PygProblem
from graphdyn.snapshot import Snapshot

N, F, C = 60, 5, 3

METHODS = {
    "full": {"sampler": "full"},
    "neighbor": {"sampler": "neighbor", "fanouts": 2, "batch_size": 10},
    "cluster": {"sampler": "cluster", "parts": 6, "parts_per_batch": 3},
    "labor": {"sampler": "labor", "fanouts": 2, "batch_size": 10},
    "vr-gcn": {"preset": "vr-gcn", "fanouts": 2, "batch_size": 10},
    "gas": {"preset": "gas", "parts": 6, "parts_per_batch": 2},
    "lmc": {"preset": "lmc", "parts": 6, "parts_per_batch": 2},
    "cvd": {"preset": "vr-gcn-cvd", "fanouts": 2, "batch_size": 10},
    "svrg": {"preset": "svrg", "fanouts": 2, "batch_size": 10},
    "sgcn+": {"preset": "sgcn+", "fanouts": 2, "batch_size": 10},
}
SUMS = ("vr-gcn", "lmc", "cvd")  # not for attention


def graph(dtype=torch.float64, seed=0):
    """60 nodes, undirected, of uneven degree, one with a loop; half of them train."""
    rng = np.random.default_rng(seed)
    edges = rng.integers(0, N, (2, 120))
    edges[0] = edges[0] * edges[0] // N
    edges = np.concatenate([edges[:, edges[0] != edges[1]], [[3], [3]]], 1)
    both = np.unique(np.concatenate([edges, edges[::-1]], 1), axis=1)
    return gd.Graph.from_edge_index(
        both,
        N,
        x=cases.seeded(N, F, seed=seed + 1, dtype=dtype),
        y=torch.arange(N) % C,
        num_classes=C,
        split=gd.Split(torch.arange(0, N, 2), torch.arange(1, 20, 2), torch.arange(21, N, 2)),
    )


def model(name="gcn", g=None, **options):
    """Of graphdyn, float64, away from its initial values; three layers."""
    own = {"hidden": 8, "layers": 3, "seed": 1} | ({"heads": 2} if "gat" in name else {}) | options
    made = gd.build(name, F, C, **own).double()
    for i, p in enumerate(made.parameters()):
        p.data += 0.1 * cases.seeded(*p.shape, seed=i)
    return made


def node_problem(made, g, method="full", **options):
    plans, memory = gd.method(**METHODS[method]).prepare(made, g)
    memory.start()
    return NodeProblem(made, g, plans, memory=memory, **options)


def pyg_model(name="GCN", **options):
    """Of PyG, unmodified, float64; three layers."""
    own = {"normalize": False} if name == "GCN" else {}
    made = getattr(pyg.models, name)(F, 8, 3, C, **own | options).double()
    for i, p in enumerate(made.parameters()):
        p.data = 0.4 * cases.seeded(*p.shape, seed=i)
    return made


def pyg_problem(made, g, sampler=None, propagation="gcn", **options):
    sampler = sampler or gd.Neighbor((2, 2, 2), batch_size=10, reuse=True)
    loader = gd.PygLoader(sampler, g, propagation, num_layers=3)
    return PygProblem(made, loader, **options)


def snapshot(made, problem, step=0, seed=4, **fields):
    optimizer = torch.optim.SGD(made.parameters(), 0.1)
    key = gd.Key(seed).at(step=step)
    return Snapshot(step, 0, made, optimizer, Groups(made), problem, key, **fields)


def number(value):
    """Of a reading."""
    return float(value.value if isinstance(value, Estimate) else value)


def state_of(made):
    """All that looking must leave as it was."""
    return {n: t.clone() for n, t in made.state_dict().items()}


def same(before, made):
    return all(torch.equal(t, before[n]) for n, t in made.state_dict().items())


def hooks_of(made):
    return [h for m in made.modules() for h in (*m._forward_hooks, *m._forward_pre_hooks)]
