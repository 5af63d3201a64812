"""Every instrument that looks between layers, on every kind of model, norm, skip and method: looking changes nothing."""

import pytest
import torch
from instruments import layered

from graphdyn.estimate import Invalid
from graphdyn.instruments.attention_entropy import AttentionEntropy
from graphdyn.instruments.by_degree import ByDegree
from graphdyn.instruments.embedding_error import EmbeddingError
from graphdyn.instruments.grad_flow import GradFlow
from graphdyn.instruments.norm_gap import NormGap
from graphdyn.instruments.smoothness import Smoothness
from graphdyn.instruments.staleness import Staleness
from graphdyn.instruments.units import Units

ALL = {
    "smoothness": Smoothness,
    "units": Units,
    "grad_flow": GradFlow,
    "by_degree": ByDegree,
    "norm_gap": lambda: NormGap(m=2),
    "attention": AttentionEntropy,
    "staleness": lambda: Staleness(m=2),
    "embedding_error": lambda: EmbeddingError(m=2),
}
OURS = [
    ("gcn", "batch", "none", "post", "neighbor"),
    ("gcn", "layer", "identity", "post", "cluster"),
    ("gcn", "batch", "identity", "post", "vr-gcn"),
    ("gcn", "none", "none", "post", "lmc"),
    ("gcn", "weighted-batch", "linear", "post", "labor"),
    ("gcn", "batch", "identity", "pre", "gas"),
    ("gcn", "pair", "none", "post", "sgcn+"),
    ("sage", "batch", "linear", "post", "neighbor"),
    ("sage", "layer", "identity", "pre", "gas"),
    ("gat", "batch", "identity", "post", "neighbor"),
    ("gat", "none", "none", "post", "gas"),
    ("gatv2", "layer", "linear", "post", "labor"),
    ("gcnii", "none", "none", "post", "vr-gcn"),
    ("gcnii", "batch", "identity", "post", "cluster"),
    ("gcn", "graph", "dense-cat", "post", "cvd"),
    ("sgc", "none", "none", "post", "neighbor"),
    ("appnp", "none", "none", "post", "gas"),
]
THEIRS = [
    ("GCN", {"norm": "batch", "dropout": 0.5}),
    ("GraphSAGE", {"norm": "layer", "dropout": 0.5, "jk": "cat"}),
    ("GAT", {"norm": "BatchNorm", "heads": 2, "dropout": 0.5}),
    ("GAT", {"v2": True}),
]


def look(made, problem):
    """What each instrument says, or why it does not."""
    params = [*made.parameters()]
    before = torch.cat([p.detach().reshape(-1) for p in params])
    for p in params:
        p.grad = torch.ones_like(p)
    s = layered.snapshot(made, problem, before=before + 0.01)
    said = {}
    for name, make in ALL.items():
        instrument = make()
        try:
            instrument.setup(s)
            said[name] = {k: layered.number(v) for k, v in instrument.measure(s).items()}
        except Invalid as reason:
            said[name] = str(reason)
    return said


def check(said, made, kept, rng):
    assert layered.same(kept, made)
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in made.parameters())
    assert layered.hooks_of(made) == []
    for name, found in said.items():
        if isinstance(found, dict):
            assert found, name
            assert all(v == v and abs(v) != float("inf") for v in found.values()), (name, found)
        else:
            assert found.endswith("."), found


@pytest.mark.parametrize(("name", "norm", "skip", "order", "method"), OURS)
def test_our_models(name, norm, skip, order, method):
    g = layered.graph()
    own = {"norm": norm, "skip": skip, "order": order, "dropout": 0.5}
    if name in ("sgc", "appnp"):
        own = {"dropout": 0.5, "hops": 2}
    made = layered.model(name, **own)
    problem = layered.node_problem(made, g, method)
    tables = {n: t.clone() for n, t in problem.memory.state().items()}
    kept, rng = layered.state_of(made), torch.get_rng_state()
    said = look(made, problem)
    check(said, made, kept, rng)
    assert all(torch.equal(t, tables[n]) for n, t in problem.memory.state().items())
    valid = {n for n, found in said.items() if isinstance(found, dict)}
    expected = {"smoothness", "grad_flow", "by_degree", "embedding_error"}
    expected |= {"units"} if name != "appnp" else set()
    expected |= {"norm_gap"} if "batch" in norm and name not in ("sgc", "appnp") else set()
    expected |= {"attention"} if "gat" in name else set()
    expected |= {"staleness"} if method in ("vr-gcn", "lmc", "gas", "cvd") else set()
    assert valid == expected


@pytest.mark.parametrize(("name", "options"), THEIRS)
def test_models_of_pyg(name, options):
    g = layered.graph()
    made = layered.pyg_model(name, **options)
    kind = {"GCN": "gcn", "GraphSAGE": "none", "GAT": "none"}[name]
    problem = layered.pyg_problem(made, g, propagation=kind)
    kept, rng = layered.state_of(made), torch.get_rng_state()
    said = look(made, problem)
    check(said, made, kept, rng)
    valid = {n for n, found in said.items() if isinstance(found, dict)}
    expected = {"smoothness", "grad_flow", "by_degree", "embedding_error", "units"}
    expected |= {"norm_gap"} if "batch" in str(options).lower() else set()
    expected |= {"attention"} if name == "GAT" else set()
    assert valid == expected
