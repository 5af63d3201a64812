"""Units: columns whose fate is known, batches below each other, signs that turn over."""

import cases
import pytest
import torch
from instruments import layered

from graphdyn.estimate import Invalid
from graphdyn.instruments.units import Units, dead, dormant, moments


def test_dead_and_dormant_units():
    post = torch.ones(10, 4)
    post[:, 0] = 0
    post[1:, 1] = 0  # alive on one node: mean 0.1
    post[:, 2] = -1.0  # size counts
    assert float(dead(post)) == 0.25
    scale = (0 + 0.1 + 1 + 1) / 4
    assert float(dormant(post, 0.1 / scale + 1e-9)) == 0.5
    assert float(dormant(post, 0.1 / scale - 1e-9)) == 0.25
    assert float(dormant(torch.zeros(3, 2), 0.1)) == 1


def test_moments_of_known_columns():
    pm = torch.tensor([1.0, -1.0]).repeat(50)  # kurtosis 1
    rare = torch.zeros(100)
    rare[:10] = 1.0  # Bernoulli p = 0.1: kurtosis (1 - 3 p q) / (p q)
    constant = torch.full((100,), 5.0)
    found = moments(torch.stack([3 * pm + 2, rare, constant], 1))
    pq = 0.09
    assert float(found["mean"]) == pytest.approx((2 + 0.1 + 5) / 3)
    assert float(found["var"]) == pytest.approx((9 + pq + 0) / 3)
    assert float(found["kurtosis"]) == pytest.approx((1 + (1 - 3 * pq) / pq) / 2, rel=1e-5)
    assert moments(constant[:, None]).keys() == {"mean", "var"}
    normal = moments(cases.seeded(200_000, 1))["kurtosis"]
    assert abs(float(normal) - 3) <= 5 * (24 / 200_000) ** 0.5


@pytest.mark.parametrize("kind", ["ours", "theirs"])
def test_dead_units_are_found_behind_their_layer(kind):
    g = layered.graph()
    if kind == "ours":
        made = layered.model("gcn", norm="layer", dropout=0.5)
        problem, layer = layered.node_problem(made, g, "neighbor"), "layer 2"
    else:
        made = layered.pyg_model(norm="layer", dropout=0.5)
        problem, layer = layered.pyg_problem(made, g), "convs.1"
    for norm in made.norms[:2]:
        norm.bias.data.fill_(3)
    made.norms[1].weight.data[:2], made.norms[1].bias.data[:2] = 0, -1
    found = Units().measure(layered.snapshot(made, problem))
    assert float(found["dead", layer]) == 2 / 8
    others = [float(v) for (name, where), v in found.items() if name == "dead" and where != layer]
    assert others == [0.0]
    assert float(found["dormant", layer]) >= 2 / 8


def test_a_unit_that_is_silent_on_one_batch_is_not_dead():
    """A threshold that few nodes reach: each unit is silent on some of the batches."""
    g = layered.graph()
    made = layered.model("gcn", layers=2, dropout=0.0)
    problem = layered.node_problem(made, g, "neighbor", chunk=7)
    s = layered.snapshot(made, problem)
    reached = torch.stack(
        [s.trace("batch", i).units["layer 1"].pre.max(0).values for i in range(8)]
    )
    made.convs[0].lin.bias.data -= reached.max(0).values - 1e-3
    made.convs[0].lin.bias.data[:3] -= 1  # and three that nobody reaches
    s = layered.snapshot(made, problem)
    instrument = Units()
    found = instrument.measure(s)
    each = torch.stack([(s.trace("batch", i).units["layer 1"].post == 0).all(0) for i in range(8)])
    assert each[:, 3:].any(0).all()
    assert float(found["dead of batches", "layer 1"]) == 3 / 8
    assert "does not fit" in instrument.reason
    again = instrument.measure(
        s
    )  # of other nodes each time, so that no sign can be said to turn over
    assert not any("flips" in name for name, _ in again)
    instrument.level = 2  # two batches
    fewer = instrument.measure(s)["dead of batches", "layer 1"]
    assert float(fewer) == float(each[:2].all(0).double().mean())


def test_rows_that_no_target_hears_do_not_count():
    """A PyG model computes them all the same."""
    g = layered.graph()
    made = layered.pyg_model()
    problem = layered.pyg_problem(made, g, chunk=7)
    s = layered.snapshot(made, problem)
    found = Units().measure(s)
    pre, post = [], []
    for i in range(8):
        trace = s.trace("batch", i)
        heard = trace.nodes["convs.1"].numel()
        assert heard < trace.units["convs.1"].pre.shape[0]
        pre.append(trace.units["convs.1"].pre[:heard])
        post.append(trace.units["convs.1"].post[:heard])
    assert float(found["mean of batches", "convs.1"]) == pytest.approx(float(torch.cat(pre).mean()))
    size = torch.cat(post).abs().mean(0)
    for k, share in enumerate((size / size.mean()).sort().values, 1):  # k units are dormant
        dormant_units = Units(tau=float(share) + 1e-9).measure(s)["dormant of batches", "convs.1"]
        assert float(dormant_units) == k / 8


def test_signs_turn_over():
    g = layered.graph()
    made = layered.model("gcn", dropout=0.5)
    problem, instrument = layered.node_problem(made, g), Units()
    first = instrument.measure(layered.snapshot(made, problem, step=1))
    assert not any(name == "flips" for name, _ in first)
    # Another moment has other keys, but the same masks: nothing turns over unless weights do.
    still = instrument.measure(layered.snapshot(made, problem, step=2))
    assert float(still["flips", "layer 1"]) == float(still["flips", "layer 2"]) == 0
    kept = instrument.state()
    made.convs[1].lin.weight.data *= -1
    made.convs[1].lin.bias.data *= -1
    made.convs[0].lin.weight.data[:2] *= -1
    made.convs[0].lin.bias.data[:2] *= -1
    moved = instrument.measure(layered.snapshot(made, problem, step=3))
    assert float(moved["flips", "layer 1"]) == 2 / 8
    resumed = Units()
    resumed.restore(kept)
    again = resumed.measure(layered.snapshot(made, problem, step=3))
    assert float(again["flips", "layer 1"]) == 2 / 8
    few = Units(watched=5)
    few.measure(layered.snapshot(made, problem))
    assert few.state()["layer 1"].shape == (5, 8)


def test_models_without_activations():
    g = layered.graph()
    made = layered.model("gcn", activation="none")
    with pytest.raises(Invalid, match="no activation function was seen"):
        Units().measure(layered.snapshot(made, layered.node_problem(made, g)))
