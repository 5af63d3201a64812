"""EmbeddingError: dense algebra batch by batch, closed forms of sampling, and layers whose inputs are exact."""

import cases
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from instruments import layered

import graphdyn as gd
from graphdyn.estimate import Invalid
from graphdyn.instruments.embedding_error import EmbeddingError
from graphdyn.node_problem import NodeProblem
from graphdyn.statistics import quotient


def dense_gcn(g):
    a = torch.zeros(layered.N, layered.N, dtype=torch.float64)
    for u, v in zip(*g.edge_index.tolist()):
        a[v, u] = 1
    a.fill_diagonal_(1)
    d = a.sum(1).rsqrt()
    return d[:, None] * a * d


@pytest.mark.parametrize(("method", "dropout"), [("full", 0.5), ("neighbor", 0.5)])
@pytest.mark.parametrize("name", ["gcn", "sage", "gat", "gcnii"])
def test_all_neighbours_make_no_error(name, method, dropout):
    """Under the same dropout masks, those of edges among them."""
    g = layered.graph()
    made = layered.model(name, norm="layer", skip="linear", dropout=dropout, edge_dropout=0.3)
    sampler = gd.Full() if method == "full" else gd.Neighbor((-1,), batch_size=10)
    problem = NodeProblem(made, g, sampler.prepare(g, made.propagation, 3))
    found = EmbeddingError(m=2).measure(layered.snapshot(made, problem))
    assert {k for k, _ in found} == {"error", "cause"}
    assert len(found) == 6
    assert all(0 <= layered.number(v) < 1e-12 for v in found.values())


@pytest.mark.parametrize("order", ["post", "pre"])
def test_batch_by_batch_in_dense_algebra(order):
    g = layered.graph()
    made = layered.model("gcn", dropout=0.0, order=order)
    problem = layered.node_problem(made, g, "neighbor")
    s = layered.snapshot(made, problem)
    found = EmbeddingError(m=4).measure(s)
    a = dense_gcn(g)
    first = g.x if made.encoder is None else made.encoder(g.x)
    act = F.relu if order == "pre" else (lambda x: x)
    exact, reads, h = [], [], act(first)
    for conv in made.convs:
        reads.append(h)
        exact.append((a @ h) @ conv.lin.weight.T + conv.lin.bias)
        h = F.relu(exact[-1])
    sums = torch.zeros(4, 3, 3, dtype=torch.float64)
    for i in range(4):
        batch = s.batch(i)
        h = reads[0][batch.block(0).node_id]
        for k, conv in enumerate(made.convs):
            block = batch.block(k)
            matrix = block.adjacency.to_dense().double()
            ids = block.node_id[: block.num_dst]
            z = (matrix @ h) @ conv.lin.weight.T + conv.lin.bias
            alone = (matrix @ reads[k][block.node_id]) @ conv.lin.weight.T + conv.lin.bias
            truth = exact[k][ids]
            parts = ((z - truth), (alone - truth), truth)
            sums[i, k] = torch.stack([p.square().sum() for p in parts])
            h = F.relu(z)
    total = sums.sum(0)
    for k in range(3):
        for j, what in enumerate(("error", "cause")):
            value, se, n, _ = found[what, f"layer {k + 1}"]
            cases.close(value, (total[k, j] / total[k, 2]).detach(), 1e-5)
            left = (total[k, j] - sums[:, k, j]) / (total[k, 2] - sums[:, k, 2])
            cases.close(se, (3 / 4 * ((left - left.mean()) ** 2).sum()).sqrt().detach(), 1e-4)
            assert n == 4
    first, second = (layered.number(found[what, "layer 2"]) for what in ("error", "cause"))
    assert abs(first - second) > 0.01 * second  # layer 1 has a part in the error of layer 2
    pair = [layered.number(found[what, "layer 1"]) for what in ("error", "cause")]
    assert pair[0] == pytest.approx(pair[1])


def test_uniform_sampling_has_its_variance():
    """One layer, all training nodes: k of d neighbours without replacement, loops exact."""
    g = layered.graph()
    made = layered.model("gcn", layers=1, dropout=0.0)
    nodes, fanout = g.split.train, 2
    sampler = gd.Neighbor((fanout,), batch_size=nodes.numel())
    problem = NodeProblem(made, g, sampler.prepare(g, made.propagation, 1))
    found = EmbeddingError(m=200).measure(layered.snapshot(made, problem))
    a = dense_gcn(g)
    messages = g.x @ made.convs[0].lin.weight.T.detach()
    exact = (a @ messages + made.convs[0].lin.bias.detach())[nodes]
    variance = 0.0
    for v in nodes:
        u = torch.nonzero((a[v] > 0) & (torch.arange(layered.N) != v)).flatten()
        d = u.numel()
        if d > fanout:  # d^2 (1 - k / d) S^2 / k
            spread = (a[v, u, None] * messages[u]).var(0).sum()
            variance += d**2 * (1 - fanout / d) / fanout * spread
    truth = float(variance / exact.square().sum())
    for what in ("error", "cause"):
        value, se, *_ = found[what, "layer 1"]
        assert abs(float(value) - truth) <= 5 * float(se)
        assert 0 < float(se) < 0.05 * truth
        assert abs(float(value) - 2 * truth) > 5 * float(se)


@pytest.mark.parametrize("method", ["vr-gcn", "gas", "cvd"])
def test_histories_that_are_exact_make_no_error(method):
    g = layered.graph()
    made = layered.model("gcn", dropout=0.0)
    problem = layered.node_problem(made, g, method)
    found = EmbeddingError(m=2).measure(layered.snapshot(made, problem))
    assert len(found) == 6
    assert all(layered.number(v) < 1e-10 for v in found.values())
    (memory,) = problem.memory.members
    memory.tables.rows[1] *= 1.3
    stale = EmbeddingError(m=2).measure(layered.snapshot(made, problem))
    assert all(
        layered.number(stale[w, k]) < 1e-10
        for w in ("error", "cause")
        for k in ("layer 1", "layer 2")
    )
    assert layered.number(stale["cause", "layer 3"]) > 1e-3
    assert layered.number(stale["error", "layer 3"]) == pytest.approx(
        layered.number(stale["cause", "layer 3"]), rel=1e-4
    )


def test_features_that_were_propagated_have_no_cause():
    """The first hop is done before training; the layer reads what the whole graph's never shows."""
    g = layered.graph(torch.float32)
    made = layered.model("gcn", dropout=0.0).float()
    plans, memory = gd.method("vr-gcn-pp", fanouts=2, batch_size=10).prepare(made, g)
    memory.start()
    problem = NodeProblem(made, g, plans, memory=memory)
    found = EmbeddingError(m=2).measure(layered.snapshot(made, problem))
    assert ("cause", "layer 1") not in found
    assert len(found) == 5
    assert all(layered.number(v) < 1e-10 for v in found.values())


def test_a_moment_has_its_batches():
    g = layered.graph()
    made = layered.model("gcn")
    s = layered.snapshot(made, layered.node_problem(made, g, "neighbor"))
    assert s.probe(2, 2).batches[1] is s.batch(1)
    assert s.trace("batch", 1) is s.trace("batch", 1)
    assert torch.equal(s.trace("batch", 1).targets, s.batch(1).seeds)
    assert torch.equal(s.trace("whole", 1).targets, s.batch(1).seeds)
    assert s.trace("whole", 1) is not s.trace("whole", 1)  # large, and nobody else wants it
    assert not torch.equal(s.batch(0).seeds, s.batch(1).seeds)


def test_what_a_memory_composes_has_no_cause():
    g = layered.graph()
    for method in ("lmc", "sgcn+"):
        made = layered.model("gcn", dropout=0.0)
        s = layered.snapshot(made, layered.node_problem(made, g, method))
        assert {k for k, _ in EmbeddingError(m=2).measure(s)} == {"error"}


def test_pyg_equals_ours():
    g = layered.graph()
    ours, theirs = layered.model("gcn", dropout=0.0), layered.pyg_model()
    for a, b in zip(ours.convs, theirs.convs):
        b.lin.weight.data, b.bias.data = a.lin.weight.data, a.lin.bias.data
    sampler = gd.Neighbor((2, 2, 2), batch_size=10, reuse=True)
    one = NodeProblem(ours, g, sampler.prepare(g, ours.propagation, 3))
    two = layered.pyg_problem(theirs, g, sampler)
    mine, other = (
        EmbeddingError(m=3).measure(layered.snapshot(m, p)) for m, p in ((ours, one), (theirs, two))
    )
    assert len(mine) == len(other) == 6
    for a, b in zip(mine.values(), other.values()):
        cases.close(a.value, b.value, 1e-5)
        cases.close(a.se, b.se, 1e-4)


def test_dropout_of_pyg_models_is_no_error():
    g = layered.graph()
    made = layered.pyg_model("GCN", dropout=0.5).train()
    problem = layered.pyg_problem(made, g, gd.Neighbor((-1,), batch_size=10, reuse=True))
    found = EmbeddingError(m=2).measure(layered.snapshot(made, problem))
    assert all(layered.number(v) < 1e-12 for v in found.values())


def test_norms_over_rows_count_as_error():
    g = layered.graph()
    made = layered.model("gcn", norm="batch", dropout=0.0)
    sampler = gd.Neighbor((-1,), batch_size=10)
    problem = NodeProblem(made, g, sampler.prepare(g, made.propagation, 3))
    found = EmbeddingError(m=2).measure(layered.snapshot(made, problem))
    assert layered.number(found["error", "layer 2"]) > 1e-4
    assert layered.number(found["cause", "layer 2"]) < 1e-12


def test_a_graph_that_does_not_fit():
    g = layered.graph()
    made = layered.model("gcn")
    problem = layered.node_problem(made, g, "neighbor", chunk=7)
    with pytest.raises(Invalid, match="taken in pieces"):
        EmbeddingError(m=2).measure(layered.snapshot(made, problem))


def test_errors_of_quotients_cover():
    """Student's interval of 8 batches, of pairs that go together."""
    rng = np.random.default_rng(0)
    bottoms = torch.from_numpy(rng.gamma(20.0, 1.0, (8, 20_000)))
    tops = 0.3 * bottoms * torch.from_numpy(rng.gamma(16.0, 1 / 16, (8, 20_000)))
    value, se, n, _ = quotient(tops, bottoms)
    assert n == 8
    inside = ((value - 0.3).abs() <= 2.3646 * se).double().mean()
    assert 0.93 <= float(inside) <= 0.97
    assert quotient(tops[:1], bottoms[:1]).se is None
