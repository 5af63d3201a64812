"""PLConstant: quadratics in closed form, and graph models against one derivative of the whole graph."""

import pytest
import torch
from cases import small_model, tiny, whole
from instruments import noisy

import graphdyn as gd
from graphdyn.estimate import Invalid
from graphdyn.instruments.pl_constant import PLConstant
from graphdyn.keys import Key
from graphdyn.loss import node_loss
from graphdyn.node_problem import NodeProblem
from graphdyn.problem import FunctionProblem


def snapshot(model, problem, step=0):
    return noisy.moment(model, problem, step, key=Key(4).at(step=step))


class Quadratic(torch.nn.Module):
    """sum h x^2 / 2 in two pieces, the second half of the targets bringing the floor."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
        self.second = torch.nn.Parameter(torch.tensor([3.0], dtype=torch.float64))
        self.h = torch.tensor([0.5, 2.0, 4.0], dtype=torch.float64)

    def loss(self, piece):
        x = torch.cat([self.first, self.second])
        return (self.h * x.square()).sum() / 4 + 0.3 * piece


def quadratic(model, **more):
    return FunctionProblem(
        lambda m, piece: m.loss(piece),
        lambda key: 0.0,
        num_targets=2,
        batch_size=1,
        full=lambda: iter([0.0, 1.0]),
        **more,
    )


def test_a_quadratic():
    model = Quadratic()
    found = PLConstant(optimum=0.3).measure(snapshot(model, quadratic(model)))
    # h x^2 is 0.5, 8, 36 and (h x)^2 is 0.25, 16, 144.
    assert float(found["gap"].value) == pytest.approx(44.5 / 2)
    assert float(found["mu"].value) == pytest.approx(160.25 / 44.5)
    assert float(found["mu", "first"].value) == pytest.approx(16.25 / 44.5)
    assert float(found["mu", "second"].value) == pytest.approx(144 / 44.5)
    assert 0.5 < float(found["mu"].value) < 4


def test_an_optimum_that_is_too_low_makes_it_too_small():
    model = Quadratic()
    s = snapshot(model, quadratic(model))
    true, low = (PLConstant(optimum=v).measure(s)["mu"].value for v in (0.3, 0.0))
    assert float(low) == pytest.approx(160.25 / (44.5 + 0.6))
    assert low < true


def test_the_smallest_is_kept():
    model, instrument = Quadratic(), PLConstant(optimum=0.3)
    first = float(instrument.measure(snapshot(model, quadratic(model)))["mu"].value)
    with torch.no_grad():
        model.second.zero_()
    second = instrument.measure(snapshot(model, quadratic(model), 1))
    assert float(second["smallest"]) == float(second["mu"].value) < first
    other = PLConstant(optimum=0.3)
    other.restore(instrument.state())
    with torch.no_grad():
        model.first.zero_()
        model.second.fill_(1.0)
    third = other.measure(snapshot(model, quadratic(model), 2))
    assert float(third["mu"].value) == pytest.approx(4)
    assert float(third["smallest"]) == float(second["smallest"])


def test_a_loss_at_its_optimum_has_no_ratio():
    model = Quadratic()
    with pytest.raises(Invalid, match="optimum"):
        PLConstant(optimum=30.0).measure(snapshot(model, quadratic(model)))


def test_it_needs_all_targets():
    model = Quadratic()
    problem = FunctionProblem(
        lambda m, piece: m.loss(piece), lambda key: 0.0, num_targets=2, batch_size=1
    )
    with pytest.raises(Invalid, match="does not know all targets"):
        PLConstant().measure(snapshot(model, problem))


METHODS = {
    "neighbor": {"sampler": "neighbor", "fanouts": "2,2", "batch_size": 3},
    "labor": {"sampler": "labor", "fanouts": "2,2", "batch_size": 3},
    "cluster": {"sampler": "cluster", "parts": 3, "parts_per_batch": 2},
    "full": {"sampler": "full"},
    "vr-gcn": {"preset": "vr-gcn", "batch_size": 3},
}
ROWS = [
    ("gcn", "none", "none", "neighbor"),
    ("gcn", "batch", "identity", "cluster"),
    ("sage-mean", "layer", "linear", "labor"),
    ("gat", "batch", "none", "full"),
    ("gcnii", "layer", "none", "neighbor"),
    ("gcn", "none", "dense-cat", "vr-gcn"),
]


@pytest.mark.parametrize(("name", "norm", "skip", "method"), ROWS)
def test_graph_models(name, norm, skip, method):
    graph = tiny("undirected")
    options = {} if name == "gcnii" else {"skip": skip}
    model = small_model(name, norm=norm, **options, layers=2)
    model.train()
    before = {n: b.clone() for n, b in model.named_buffers()}
    plans, memory = gd.method(**METHODS[method]).prepare(model, graph, key=Key(1))
    s = snapshot(model, NodeProblem(model, graph, plans, memory=memory))
    found = PLConstant().measure(s)
    for n, b in model.named_buffers():
        assert torch.equal(b, before[n])
    batch = whole(graph, model, graph.split.train)
    loss = node_loss(model(batch).logits, batch)
    grads = torch.autograd.grad(loss, [*model.parameters()], allow_unused=True)
    squared = sum(float(g.square().sum()) for g in grads if g is not None)
    assert float(found["gap"].value) == pytest.approx(float(loss.detach()), rel=1e-6)
    assert float(found["mu"].value) == pytest.approx(squared / (2 * float(loss.detach())), rel=1e-6)
    parts = [float(v.value) for k, v in found.items() if isinstance(k, tuple)]
    assert sum(parts) == pytest.approx(float(found["mu"].value))
