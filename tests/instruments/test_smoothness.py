"""Smoothness: dense Laplacians, eigenvectors under a linear GCN, closed forms of ranks, samples that cover."""

import math

import cases
import numpy as np
import pytest
import torch
from instruments import layered

import graphdyn as gd
from graphdyn.estimate import Invalid
from graphdyn.instruments.looks import degrees, state_grads
from graphdyn.instruments.smoothness import Edges, Smoothness, edges_among, log_rank, smoothness
from graphdyn.problem import FunctionProblem


def dense(g):
    """Adjacency without loops, and its degrees; loops count nowhere but in D + 1."""
    a = np.zeros((layered.N, layered.N))
    for u, v in zip(*g.edge_index.tolist()):
        a[v, u] = u != v
    return torch.from_numpy(a), torch.from_numpy(a.sum(1))


def plain():
    """The graph of the tests without its loop."""
    g = layered.graph()
    keep = g.edge_index[0] != g.edge_index[1]
    own = {"x": g.x, "y": g.y, "num_classes": 3, "split": g.split}
    return gd.Graph.from_edge_index(g.edge_index[:, keep], layered.N, **own)


def every(g):
    return edges_among(g, None, 10**6, gd.Key(0))


def test_both_energies_are_rayleigh_quotients():
    g, h = layered.graph(), cases.seeded(layered.N, 4, seed=7)
    a, d = dense(g)
    assert torch.equal(degrees(g), d.long())
    share = (d + 1).rsqrt()
    sym = torch.eye(layered.N) - share[:, None] * (a + torch.eye(layered.N)) * share
    rw = torch.diag(d) - a
    found = smoothness(h, every(g), degrees(g))
    for name, matrix in (("sym", sym), ("rw", rw)):
        expected = torch.trace(h.T @ matrix @ h) / h.square().sum()
        cases.close(found[name].value, expected, 1e-12)
        assert found[name].se == 0
    assert not torch.isclose(found["sym"].value, found["rw"].value)


def test_what_makes_each_energy_vanish():
    g = layered.graph()
    d, row = degrees(g), torch.tensor([[1.0, -2.0]])
    flat = row.expand(layered.N, 2)
    rooted = (d + 1.0).sqrt()[:, None] * row
    constant, scaled = (smoothness(h, every(g), d) for h in (flat, rooted))
    assert float(constant["rw"].value) == 0
    assert float(constant["sym"].value) > 0.01
    assert float(scaled["sym"].value) < 1e-12
    assert float(scaled["rw"].value) > 0.01
    for found in (constant, scaled):
        assert abs(float(found["mad"].value)) < 1e-12


def test_angles_edge_by_edge():
    g, h = layered.graph(), cases.seeded(layered.N, 4, seed=8)
    h[5] = 0
    cosines = []
    for u, v in zip(*g.edge_index.tolist()):
        if u != v and u != 5 and v != 5:
            a, b = h[u].numpy(), h[v].numpy()
            cosines.append(1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    found = smoothness(h, every(g), degrees(g))["mad"]
    assert float(found.value) == pytest.approx(np.mean(cosines), rel=1e-12)
    assert found.n == len(cosines)


def test_effective_ranks():
    q = torch.linalg.qr(cases.seeded(50, 6, seed=1)).Q
    q = torch.linalg.qr(q - q.mean(0)).Q
    assert float(log_rank(3 * q[:, :4] + 7)) == pytest.approx(math.log(4))
    assert float(log_rank(cases.seeded(50, 1) @ cases.seeded(1, 5, seed=2) + 2)) < 1e-5
    assert float(log_rank(torch.ones(9, 3))) == 0
    values = torch.tensor([4.0, 3.0, 1.0], dtype=torch.float64)
    p = values / 8
    rotated = (q[:, :3] * values) @ torch.linalg.qr(cases.seeded(3, 3, seed=3)).Q
    assert float(log_rank(rotated)) == pytest.approx(float(-(p * p.log()).sum()))


def linear_gcn(g, layers=4):
    """W = 1 in every layer: H_l = S^l X, as wide as the features."""
    made = gd.GCN(
        g.num_features,
        g.num_features,
        layers=layers,
        hidden=g.num_features,
        activation="none",
        dropout=0.0,
    ).double()
    for conv in made.convs:
        conv.lin.weight.data = torch.eye(g.num_features, dtype=torch.float64)
        conv.lin.bias.data.zero_()
    return made


def with_features(g, x):
    own = {"y": g.y, "num_classes": x.shape[1], "split": g.split}
    return gd.Graph.from_edge_index(g.edge_index, layered.N, x=x, **own)


def test_a_linear_gcn_decays_as_its_eigenvectors_do():
    g = plain()
    a, d = dense(g)
    share = (d + 1).rsqrt()
    s = share[:, None] * (a + torch.eye(layered.N)) * share
    values, vectors = torch.linalg.eigh(s.double())
    order = values.abs().argsort(descending=True)
    assert float(values[order[0]]) == pytest.approx(1)
    second = order[1]
    mu = float(values[second])
    mode = vectors[:, second, None] * torch.tensor([[2.0, -1.0, 0.5]], dtype=torch.float64)
    for x, equal in ((mode, True), (cases.seeded(layered.N, 3, seed=5), False)):
        one = with_features(g, x)
        made = linear_gcn(one)
        trace = layered.snapshot(made, layered.node_problem(made, one)).trace()
        found = Smoothness(backward=False).measure(
            layered.snapshot(made, layered.node_problem(made, one))
        )
        start = float(torch.trace(x.T @ (torch.eye(layered.N) - s) @ x))
        for k, (layer, h) in enumerate(trace.states.items(), 1):
            energy = float(found["sym", layer].value) * float(h.detach().square().sum())
            bound = mu ** (2 * k) * start
            if equal:  # the propagation matrix has float32 values
                assert energy == pytest.approx(bound, rel=1e-5)
                assert float(found["sym", layer].value) == pytest.approx(1 - mu, rel=1e-5)
            else:
                assert energy < bound
    # k = 1 (the eigenvector of eigenvalue 1) would not decay at all
    assert abs(mu) < 0.99


@pytest.mark.parametrize("name", ["sym", "rw", "mad"])
def test_a_sample_of_edges_is_unbiased_and_its_errors_cover(name):
    g, h = layered.graph(), cases.seeded(layered.N, 4, seed=9)
    d = degrees(g)
    truth = float(smoothness(h, every(g), d)[name].value)
    values, inside = [], 0
    draws = 1500
    for seed in range(draws):
        sample = edges_among(g, None, 150, gd.Key(seed))
        assert sample.total == g.num_edges
        found = smoothness(h, sample, d)[name]
        values.append(float(found.value))
        inside += abs(values[-1] - truth) <= 1.96 * float(found.se)
    error = np.std(values) / draws**0.5
    assert abs(np.mean(values) - truth) <= 5 * error
    assert 0.93 <= inside / draws <= 0.97
    assert abs(np.mean(values) - 2 * truth) > 5 * error


def test_few_edges_are_all_read():
    g = layered.graph()
    sample = edges_among(g, None, g.num_edges, gd.Key(0))
    assert sample.total is None
    assert torch.equal(torch.stack(sample[:2]), g.edge_index)


def test_edges_among_some_nodes():
    g = layered.graph()
    nodes = torch.tensor([7, 3, 12, 0, 30, 1, 2])
    src, dst, total = edges_among(g, nodes, 10**6, gd.Key(0))
    found = sorted(zip(nodes[src].tolist(), nodes[dst].tolist()))
    inside = set(nodes.tolist())
    expected = sorted((u, v) for u, v in zip(*g.edge_index.tolist()) if {u, v} <= inside)
    assert found == expected
    assert total is None
    sampled = edges_among(g, nodes, 4, gd.Key(0))
    assert sampled.total == len(expected)
    pairs = zip(nodes[sampled.src].tolist(), nodes[sampled.dst].tolist())
    assert set(pairs) <= set(expected)
    everyone = torch.randperm(layered.N, generator=gd.Key(0).generator())
    a, b, _ = edges_among(g, everyone, 10**6, gd.Key(0))
    assert torch.equal(torch.stack([everyone[a], everyone[b]]), g.edge_index)


def test_the_backward_twin_is_the_same_of_derivatives():
    g = layered.graph()
    made = layered.model("gcn", norm="batch")
    s = layered.snapshot(made, layered.node_problem(made, g))
    found = Smoothness().measure(s)
    trace = s.trace()
    grads = torch.autograd.grad(trace.loss, [*trace.states.values()], retain_graph=True)
    assert list(state_grads(trace)) == list(trace.states)
    for layer, grad in zip(trace.states, grads):
        expected = smoothness(grad, every(g), degrees(g))
        for name, value in expected.items():
            cases.close(found[f"{name}_grad", layer].value, value.value, 1e-12)
            assert not torch.isclose(found[f"{name}_grad", layer].value, found[name, layer].value)
    assert not any("_grad" in k[0] for k in Smoothness(backward=False).measure(s))


def test_permuted_rows_are_those_of_the_same_nodes():
    """PyG batches put seeds first."""
    g = layered.graph()
    ours, theirs = layered.model("gcn", dropout=0.0), layered.pyg_model()
    for a, b in zip(ours.convs, theirs.convs):
        b.lin.weight.data, b.bias.data = a.lin.weight.data, a.lin.bias.data
    one = Smoothness().measure(layered.snapshot(ours, layered.node_problem(ours, g)))
    two = Smoothness().measure(layered.snapshot(theirs, layered.pyg_problem(theirs, g)))
    assert len(one) == len(two) == 24
    for mine, other in zip(one.values(), two.values()):
        cases.close(mine.value, other.value, 1e-5)


def test_a_graph_in_pieces_is_seen_batch_by_batch():
    g = layered.graph()
    made = layered.model("gcn", dropout=0.0)
    instrument = Smoothness()
    s = layered.snapshot(made, layered.node_problem(made, g, "neighbor", chunk=7))
    found = instrument.measure(s)
    assert "does not fit" in instrument.reason
    assert all(name.endswith(" of a batch") for name, _ in found)
    trace = s.trace("exact")
    a, d = dense(g)
    share = (d + 1).rsqrt()
    for layer, h in trace.states.items():
        ids, h = trace.nodes[layer], h.detach()
        energy = 0.0
        for i, u in enumerate(ids):
            for j, v in enumerate(ids):
                if a[v, u]:
                    energy += float((h[i] * share[u] - h[j] * share[v]).square().sum()) / 2
        value = float(found["sym of a batch", layer].value) * float(h.square().sum())
        assert value == pytest.approx(energy)


def test_where_there_is_nothing_to_say():
    net = torch.nn.Linear(2, 2)
    problem = FunctionProblem(
        lambda m, b: m(b).sum(), lambda key: torch.ones(1, 2), num_targets=1, batch_size=1
    )
    with pytest.raises(Invalid, match="has no graph; use NodeProblem or PygProblem"):
        Smoothness().setup(layered.snapshot(net, problem))
    g = layered.graph()
    made = layered.model("gcn")
    for p in made.parameters():
        p.data.zero_()
    s = layered.snapshot(made, layered.node_problem(made, g))
    with pytest.raises(Invalid, match="all of them are 0"):
        Smoothness(backward=False).measure(s)
    lonely = Edges(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    assert smoothness(g.x, lonely, degrees(g)).keys() == {"log_rank"}
