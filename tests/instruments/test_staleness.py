"""Staleness: tables whose error and age are known, under every memory that keeps outputs."""

import cases
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from instruments import layered

from graphdyn.estimate import Invalid
from graphdyn.instruments.staleness import Staleness

KEEP = ["vr-gcn", "gas", "lmc", "cvd"]


def tables_of(problem):
    (memory,) = problem.memory.members
    return memory.outputs if hasattr(memory, "outputs") else memory.tables


def ready(method, **options):
    g = layered.graph()
    made = layered.model("gcn", **{"dropout": 0.0} | options)
    problem = layered.node_problem(made, g, method)
    return made, problem, tables_of(problem)


@pytest.mark.parametrize("method", KEEP)
def test_exact_tables_have_no_error_and_their_age(method):
    made, problem, _ = ready(method, norm="batch")
    found = Staleness(m=3).measure(layered.snapshot(made, problem, step=7))
    layers = {"layer 1", "layer 2"} | ({"layer 3"} if method == "lmc" else set())
    assert {k[1] for k in found if not isinstance(k, str)} == layers
    for key, value in found.items():
        name = key if isinstance(key, str) else key[0]
        expected = 7 if name == "age" else 0
        assert layered.number(value) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("method", KEEP)
def test_a_known_error(method):
    made, problem, tables = ready(method)
    tables.rows[0] *= 1.5
    tables.rows[1] *= 0.8
    tables.written[1].fill_(3)
    before = {n: t.clone() for n, t in problem.memory.state().items()}
    found = Staleness(m=3).measure(layered.snapshot(made, problem, step=7))
    assert layered.number(found["error", "layer 1"]) == pytest.approx(0.5, rel=1e-5)
    assert layered.number(found["error", "layer 2"]) == pytest.approx(0.2, rel=1e-5)
    assert layered.number(found["age", "layer 1"]) == 7
    assert layered.number(found["age", "layer 2"]) == 4
    assert 4 < layered.number(found["age"]) < 7
    assert float(found["error", "layer 1"].se) == pytest.approx(0, abs=1e-6)
    assert all(torch.equal(t, before[n]) for n, t in problem.memory.state().items())


def exact_states(made, g):
    """Two layers of a GCN by dense algebra."""
    a = torch.zeros(layered.N, layered.N, dtype=torch.float64)
    for u, v in zip(*g.edge_index.tolist()):
        a[v, u] = 1
    a.fill_diagonal_(1)
    d = a.sum(1).rsqrt()
    a, h, out = d[:, None] * a * d, g.x, []
    for conv in made.convs:
        out.append(a @ h @ conv.lin.weight.T + conv.lin.bias)
        h = F.relu(out[-1])
    return [z.detach() for z in out]


def test_rows_that_the_batches_read_and_no_others():
    made, problem, tables = ready("gas")
    exact = exact_states(made, problem.graph)
    for hop, table in tables.rows.items():
        table += cases.seeded(*table.shape, seed=hop).float() * torch.arange(layered.N)[:, None] / 9
        tables.written[hop].copy_(torch.arange(layered.N) % 5 - 1)
    s = layered.snapshot(made, problem, step=20)
    found = Staleness(m=4).measure(s)
    every = []
    for hop in (0, 1):
        tops, bottoms, ages = [], [], []
        for i in range(4):
            ids = s.batch(i).block(hop + 1).border_id
            truth, kept = exact[hop][ids], tables.rows[hop][ids].double()
            tops.append(float((truth - kept).square().sum()))
            bottoms.append(float(truth.square().sum()))
            ages += (20 - (ids % 5 - 1)).tolist()
        tops, bottoms = np.array(tops), np.array(bottoms)
        every.append((tops, bottoms))
        layer = f"layer {hop + 1}"
        value, se, n, _ = found["error", layer]
        assert float(value) == pytest.approx((tops.sum() / bottoms.sum()) ** 0.5, rel=1e-5)
        assert layered.number(found["age", layer]) == pytest.approx(np.mean(ages))
        assert n == 4
        left = [(tops.sum() - t) / (bottoms.sum() - b) for t, b in zip(tops, bottoms)]
        jackknife = (3 / 4 * np.sum((left - np.mean(left)) ** 2)) ** 0.5
        assert float(se) == pytest.approx(jackknife / 2 / float(value), rel=1e-4)
    tops, bottoms = (sum(pair[k].sum() for pair in every) for k in (0, 1))
    assert layered.number(found["error"]) == pytest.approx((tops / bottoms) ** 0.5, rel=1e-5)


def test_a_row_that_was_never_written_is_older_than_the_run():
    made, problem, tables = ready("gas")
    for written in tables.written.values():
        written.fill_(-1)
    found = Staleness(m=2).measure(layered.snapshot(made, problem, step=9))
    assert layered.number(found["age"]) == 10


@pytest.mark.parametrize("method", ["neighbor", "sgcn+"])
def test_nothing_to_read(method):
    g = layered.graph()
    made = layered.model("gcn")
    with pytest.raises(Invalid, match="nothing is remembered that a batch reads"):
        Staleness().setup(layered.snapshot(made, layered.node_problem(made, g, method)))
    theirs = layered.pyg_model()
    with pytest.raises(Invalid, match="it is for NodeProblem with memory="):
        Staleness().setup(layered.snapshot(theirs, layered.pyg_problem(theirs, g)))


def test_a_model_of_one_layer_remembers_nothing():
    g = layered.graph()
    made = layered.model("gcn", layers=1)
    s = layered.snapshot(made, layered.node_problem(made, g, "gas"))
    with pytest.raises(Invalid, match="read no remembered rows"):
        Staleness(m=2).measure(s)
