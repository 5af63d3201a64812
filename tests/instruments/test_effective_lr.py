"""EffectiveLR: which sets, which numbers, which are missing; its predictions are in test_rules.py."""

import pytest
import torch
from instruments import layered, walks

from graphdyn.estimate import Invalid
from graphdyn.instruments.effective_lr import EffectiveLR
from graphdyn.recorder import Recorder


def one_step(model, g, method, instrument, optimizer, *, groups="layer", steps=3):
    """What an instrument says after some steps on batches of a method."""
    problem = layered.node_problem(model, g, method)
    with Recorder(model, optimizer, [instrument], problem=problem, groups=groups) as recorder:
        for step in range(steps):
            batch = problem.draw(layered.gd.Key(step))
            for name, grad in problem.step_gradient(model, batch).items():
                model.get_parameter(name).grad = grad.clone()
            before = {n: p.detach().clone() for n, p in model.named_parameters()}
            optimizer.step()
    return walks.rows(recorder), before


def sgd(model, **options):
    return torch.optim.SGD(model.parameters(), **({"lr": 0.1, "weight_decay": 0.01} | options))


@pytest.mark.parametrize("method", ["full", "neighbor", "cluster", "labor", "vr-gcn", "gas"])
def test_the_sets_of_sage_are_joint_under_every_sampler(method):
    g = layered.graph()
    model = layered.model("sage", norm="batch", head="linear")
    found, before = one_step(model, g, method, EffectiveLR(), sgd(model))
    name = "convs.1.lin_l.weight + convs.1.lin_r.weight"
    pair = [model.convs[1].lin_l.weight, model.convs[1].lin_r.weight]
    square = sum(float(w.detach().square().sum()) for w in pair)
    norm, _ = walks.last(found, "effective_lr.norm", name)
    assert norm**2 == pytest.approx(square, rel=1e-12)
    assert walks.last(found, "effective_lr.effective_lr", name)[0] == pytest.approx(0.1 / square)
    assert walks.last(found, "effective_lr.gamma", name)[0] == pytest.approx(square**2 / 0.01)
    assert walks.last(found, "effective_lr.intrinsic_lr", name)[0] == pytest.approx(1e-3)
    grads = sum(float(w.grad.square().sum()) for w in pair)
    old = sum(float(before[f"convs.1.{n}.weight"].square().sum()) for n in ("lin_l", "lin_r"))
    sphere = found["effective_lr.sphere_gradient", name]
    mean_of_last_two = 0.5 * (sphere_at(found, name, 2) + grads * old)
    assert sphere[-1][1].value == pytest.approx(mean_of_last_two, rel=1e-9)
    assert not any("lin_l" in group and "lin_r" not in group for _, group in found)


def sphere_at(found, name, step):
    """At the second measurement the window is that measurement alone."""
    return dict(found["effective_lr.sphere_gradient", name])[step].value


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("name", ["gcn", "gcnii", "sage", "gat"])
@pytest.mark.parametrize("skip", ["none", "identity"])
def test_architectures_have_sets_or_say_that_they_have_none(name, norm, skip):
    g = layered.graph()
    model = layered.model(name, norm=norm, skip=skip, layers=2, head="linear")
    found, _ = one_step(model, g, "full", EffectiveLR(), sgd(model), steps=1)
    sets = {group for what, group in found if what == "effective_lr.effective_lr"}
    expected = {
        ("gcn", "batch"): {"convs.0.lin.weight", "convs.1.lin.weight"},
        ("gcn", "layer"): {f"convs.{k}.lin.weight + convs.{k}.lin.bias" for k in (0, 1)},
        ("sage", "batch"): {f"convs.{k}.lin_l.weight + convs.{k}.lin_r.weight" for k in (0, 1)},
    }.get((name, norm), set())
    assert expected <= sets
    if name == "gat" and norm == "batch":
        assert not sets


def test_no_set_and_no_problem_are_said():
    g = layered.graph()
    model = layered.model("gcn")
    snapshot = layered.snapshot(model, layered.node_problem(model, g))
    with pytest.raises(Invalid, match="no effective learning rate"):
        EffectiveLR().setup(snapshot)
    snapshot = layered.snapshot(model, None)
    with pytest.raises(Invalid, match="give the recorder problem="):
        EffectiveLR().setup(snapshot)


def test_without_a_formula_the_norm_is_there_alone():
    g = layered.graph()
    model = layered.model("gcn", norm="batch")
    adam = torch.optim.Adam(model.parameters(), lr=0.1, weight_decay=0.1)
    found, _ = one_step(model, g, "full", EffectiveLR(), adam)
    assert walks.last(found, "effective_lr.norm", "convs.0.lin.weight")[1] is None
    assert ("effective_lr.effective_lr", "convs.0.lin.weight") not in found
    model = layered.model("gcn", norm="batch")
    found, _ = one_step(model, g, "full", EffectiveLR(), sgd(model, weight_decay=0.0))
    lr, settled = walks.last(found, "effective_lr.effective_lr", "convs.0.lin.weight")
    assert lr > 0
    assert settled is None  # nothing decays, so nothing comes to rest


def test_members_with_rules_of_their_own_leave_a_set_out():
    g = layered.graph()
    model = layered.model("gcn", norm="layer", layers=2, head="linear")
    first = [model.convs[0].lin.bias]
    rest = [p for p in model.parameters() if p is not first[0]]
    parts = [{"params": first, "weight_decay": 0.0}, {"params": rest, "weight_decay": 0.1}]
    optimizer = torch.optim.SGD(parts, lr=0.1)
    found, _ = one_step(model, g, "full", EffectiveLR(), optimizer, groups="tensor")
    sets = {group for _, group in found}
    assert sets == {"convs.1.lin.weight + convs.1.lin.bias"}


def test_coordinates_without_a_gradient_do_not_count():
    """AdamW: C is the number of coordinates that ever had one."""
    width, live = 64, 40
    model = walks.Vector(torch.full((width,), 1.0, dtype=torch.float64))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)

    def gradient(w, c):
        return torch.cat([c[:live], torch.zeros(width - live, dtype=c.dtype)])

    found = walks.walk(model, optimizer, [EffectiveLR()], walks.scale_invariant(width), 3, gradient)
    _, settled = walks.last(found, "effective_lr.effective_lr", "w")
    assert settled == pytest.approx(0.01 / (0.01 * live / 0.2) ** 0.5)
