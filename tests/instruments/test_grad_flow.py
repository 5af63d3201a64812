"""GradFlow: against derivatives taken by hand, and steps of plain gradient descent."""

import cases
import pytest
import torch
from instruments import layered

from graphdyn.estimate import Invalid
from graphdyn.instruments.grad_flow import GradFlow


def moment(made, problem):
    """After a step of plain gradient descent on the whole graph."""
    s = layered.snapshot(made, problem)
    before = s.weights.clone()
    for n, g in problem.gradient(made, next(problem.full(s.key))).items():
        p = dict(made.named_parameters())[n]
        p.grad = g
        p.data -= 0.1 * g
    return layered.snapshot(made, problem, step=1, before=before)


def test_norms_of_what_flows_back():
    g = layered.graph()
    made = layered.model("gcn", dropout=0.0)
    made.convs[1].lin.bias.data.zero_()
    s = moment(made, layered.node_problem(made, g))
    before = s.groups.unflat(s.before)
    found = GradFlow().measure(s)
    trace = s.trace()
    grads = torch.autograd.grad(trace.loss, [*trace.states.values()], retain_graph=True)
    for layer, grad in zip(trace.states, grads):
        cases.close(found["state_grad", layer], grad.norm(), 1e-12)
    top = bottom = 0.0
    for k, conv in enumerate(made.convs):
        own = [(f"convs.{k}.lin.{n}", p) for n, p in conv.lin.named_parameters()]
        grad = sum(p.grad.square().sum() for _, p in own)
        size = sum(before[n].square().sum() for n, _ in own)
        cases.close(found["grad_ratio", f"convs.{k}"], (grad / size).sqrt(), 1e-12)
        top, bottom = top + grad, bottom + size
    cases.close(found["grad_ratio"], (top / bottom).sqrt(), 1e-12)
    # Weights moved by 0.1 of it.
    change = (s.update.norm() / s.before.norm()) / found["grad_ratio"]
    assert float(change) == pytest.approx(0.1)


def test_states_of_a_batch():
    g = layered.graph()
    made = layered.model("gat", norm="batch")
    s = moment(made, layered.node_problem(made, g, "neighbor"))
    cheap, instrument = GradFlow(on="batch"), GradFlow()
    instrument.level = 1
    one, two, full = cheap.measure(s), instrument.measure(s), GradFlow().measure(s)
    key = ("state_grad", "layer 1")
    (grad,) = torch.autograd.grad(
        s.trace("batch").loss, s.trace("batch").states["layer 1"], retain_graph=True
    )
    cases.close(one[key], grad.norm(), 1e-12)
    assert torch.equal(one[key], two[key])
    assert not torch.equal(one[key], full[key])


def test_weights_of_zero_have_no_ratio():
    g = layered.graph()
    made = layered.model("gcn")
    made.convs[2].lin.bias.data.zero_()
    problem = layered.node_problem(made, g)
    from graphdyn.groups import Groups

    s = moment(made, problem)
    s.groups = Groups(made, "tensor")
    found = GradFlow().measure(s)
    groups = {k[1] for k in found if k[0] == "grad_ratio" and isinstance(k, tuple)}
    assert groups == {n for n, _ in made.named_parameters()} - {"convs.2.lin.bias"}


def test_before_the_first_step():
    g = layered.graph()
    made = layered.model("gcn")
    with pytest.raises(Invalid, match="no step was taken yet"):
        GradFlow().measure(layered.snapshot(made, layered.node_problem(made, g)))
