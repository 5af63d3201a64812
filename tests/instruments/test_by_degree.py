"""ByDegree: classes that keep equal degrees together; losses and derivatives class by class."""

import cases
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from instruments import layered

from graphdyn.estimate import Invalid
from graphdyn.instruments.by_degree import ByDegree, classes_of
from graphdyn.problem import FunctionProblem


def test_classes_keep_equal_degrees_together():
    degree = torch.tensor([1, 1, 1, 1, 1, 1, 2, 3, 4, 50])
    found = classes_of(degree, 10)
    assert list(found) == ["degree 1", "degree 2", "degree 3", "degree 4", "degree 50"]
    assert found["degree 1"].tolist() == [0, 1, 2, 3, 4, 5]
    halves = classes_of(torch.arange(100), 2)
    assert list(halves) == ["degree 0-49", "degree 50-99"]
    rng = np.random.default_rng(0)
    for most in (1, 3, 10, 40):
        degree = torch.from_numpy(rng.integers(0, 30, 77))
        parts = [*classes_of(degree, most).values()]
        assert torch.cat(parts).sort().values.tolist() == [*range(77)]
        assert len(parts) <= most
        tops = [int(degree[p].max()) for p in parts]
        assert all(int(degree[p].min()) > t for p, t in zip(parts[1:], tops))


@pytest.mark.parametrize("kind", ["ours", "theirs"])
def test_losses_and_derivatives(kind):
    g = layered.graph()
    if kind == "ours":
        made = layered.model("gcn", dropout=0.0)
        problem = layered.node_problem(made, g, "neighbor")
        logits = cases_logits(made, g)
    else:
        made = layered.pyg_model("GCN")
        problem = layered.pyg_problem(made, g)
        (batch,) = problem.full(None)
        data = batch.data
        out = made(data.x, data.edge_index, data.edge_weight.double())
        logits = out[data.n_id.argsort()]
    s = layered.snapshot(made, problem)
    found = ByDegree(classes=4).measure(s)
    degree = np.zeros(layered.N, int)
    for u, v in zip(*g.edge_index.tolist()):
        degree[v] += u != v
    nodes = g.split.train.numpy()
    names = {k[1] for k in found}
    assert 2 <= len(names) <= 4
    seen = 0
    for name in names:
        low, *high = map(int, name.removeprefix("degree ").split("-"))
        chosen = nodes[(degree[nodes] >= low) & (degree[nodes] <= (high or [low])[0])]
        losses = F.cross_entropy(logits[chosen], g.y[chosen], reduction="none")
        value, se, n, _ = found["loss", name]
        cases.close(value, losses.mean().detach(), 1e-6)
        assert n == len(chosen)
        if n > 1:
            cases.close(se, losses.std().detach() / n**0.5, 1e-6)
        grads = torch.autograd.grad(losses.mean(), [*made.parameters()], retain_graph=True)
        cases.close(found["grad", name], sum(x.square().sum() for x in grads).sqrt(), 1e-6)
        seen += n
    assert seen == len(nodes)


def cases_logits(made, g):
    return made(cases.whole(g, made)).logits


def test_a_graph_in_pieces():
    g = layered.graph()
    made, instrument = layered.model("gcn"), ByDegree(classes=2)
    problem = layered.node_problem(made, g, "neighbor", chunk=7)
    found = instrument.measure(layered.snapshot(made, problem))
    assert {k[0] for k in found} == {"loss of a batch", "grad of a batch"}
    assert "does not fit" in instrument.reason


def test_losses_that_nobody_knows():
    net = torch.nn.Sequential(torch.nn.Linear(2, 1))
    problem = FunctionProblem(
        lambda m, b: m(b).sum(), lambda key: torch.ones(1, 2), num_targets=1, batch_size=1,
        full=lambda: iter([torch.ones(1, 2)]), layers=["0"],
    )  # fmt: skip
    s = layered.snapshot(net, problem)
    with pytest.raises(Invalid, match="has no graph"):
        ByDegree().setup(s)
    problem.graph = layered.graph()
    with pytest.raises(Invalid, match="does not know the losses of its targets one by one"):
        ByDegree().measure(s)
