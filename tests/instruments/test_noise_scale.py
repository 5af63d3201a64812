"""NoiseScale: the noise scale of a quadratic in closed form, signs against single targets, lines against numpy."""

import numpy as np
import pytest
import six_nodes
import torch
from instruments import noisy

import graphdyn as gd
from graphdyn import statistics as st
from graphdyn.errors import InputError
from graphdyn.estimate import Estimate, Invalid
from graphdyn.instruments.instrument import Need
from graphdyn.instruments.noise import noise_of_gram
from graphdyn.instruments.noise_scale import NoiseScale, noise_by_signs, quotient
from graphdyn.node_problem import NodeProblem


def truth_of(q):
    trace, square = q.trace(), q.square()
    return {g: trace[g] / square[g] for g in trace}


def test_averages_are_divided_last():
    q, b, keep = noisy.Quadratic(), 4, 0.8
    problem, instrument = q.problem(b), NoiseScale(m=6, keep=keep, signs=0)
    moments = [noisy.moment(q.model, problem, seed=r) for r in range(12)]
    readings = [instrument.measure(s) for s in moments]
    grads = torch.stack([s.probe(6).grads[:, 0] for s in moments])
    grams = grads @ grads.transpose(1, 2)
    traces, squares = st.trace_of_covariance(grams).value, st.squared_mean(grams).value
    weights = torch.tensor([keep ** (11 - i) for i in range(12)], dtype=torch.float64)
    top, bottom = (float(weights @ v / weights.sum()) for v in (traces, squares))
    found = readings[-1]
    assert float(found["in_batches"].value) == pytest.approx(top / bottom)
    scale = 1 / (1 / b - 1 / q.count)
    assert float(found["noise_scale"].value) == pytest.approx(scale * top / bottom)
    assert float(found["noise_scale"].se) == pytest.approx(scale * float(found["in_batches"].se))


def test_the_noise_scale_of_a_quadratic():
    q, b = noisy.Quadratic(away=2.0), 4
    problem, instrument = q.problem(b), NoiseScale(m=8, keep=0.99, signs=0)
    for r in range(100):
        found = instrument.measure(noisy.moment(q.model, problem, seed=r))
    for group, value in truth_of(q).items():
        estimate = found["noise_scale" if group == "all" else ("noise_scale", group)]
        assert abs(float(estimate.value) - value) <= 5 * float(estimate.se), group
        assert float(estimate.se) < 0.2 * value
        # Negative control: without the finite population correction.
        wrong = float(estimate.value) * (1 - b / q.count)
        assert abs(wrong - value) > 5 * float(estimate.se)


def test_its_intervals_cover():
    """Normal gradients in 30 dimensions, a mean of several of their standard errors."""
    m, count, size, away = 16, 2000, 30, 1.0
    rng = gd.Key(0).fold("cover").generator()
    rows = away + torch.randn(count, m, size, generator=rng, dtype=torch.float64)
    found = quotient(noise_of_gram(rows @ rows.transpose(1, 2)))
    inside = (found.value - 1 / away**2).abs() <= 2.1314 * found.se  # Student, 15
    assert 0.93 <= float(inside.double().mean()) <= 0.97


def test_a_signal_that_is_not_seen_gives_infinity():
    q = noisy.Quadratic(away=0.0)
    found = [
        NoiseScale(signs=0).measure(noisy.moment(q.model, q.problem(2), seed=r)) for r in range(20)
    ]
    values = [float(f["noise_scale"].value) for f in found]
    assert any(v == float("inf") for v in values)
    assert all(v > 0 for v in values)


def test_micro_batches_need_no_problem_and_cost_nothing():
    q = noisy.Quadratic()
    (q.loss(q.model, torch.arange(6)) / 2 + q.loss(q.model, torch.arange(6, 12)) / 2).backward()
    parts = [q.gradients()[i : i + 6].mean(0) / 2 for i in (0, 6)]
    micro = torch.stack([torch.stack([p[:2].square().sum(), p[2:].square().sum()]) for p in parts])
    instrument = NoiseScale("micro")
    assert instrument.needs == Need.MICRO
    assert instrument.cost == 0
    found = instrument.measure(noisy.moment(q.model, None, micro=micro))
    rows = 2 * torch.stack(parts)
    square = float(rows[0] @ rows[1])
    assert float(found["in_batches"].value) == pytest.approx(float(rows.var(0).sum()) / square)
    assert found["in_batches"].se is None
    assert isinstance(found["noise_scale"], Invalid)
    assert set(found) == {"noise_scale", "in_batches", ("in_batches", "a"), ("in_batches", "b")}


def test_signs_give_the_noise_of_single_targets():
    g, model = six_nodes.graph(), six_nodes.gcn()
    dense = six_nodes.Dense(model, g)
    each = torch.stack([dense.gradient(dense.omega([v], 1.0)) for v in six_nodes.TRAIN])
    plans, _ = gd.method(sampler="cluster", parts=3, parts_per_batch=2).prepare(model, g)
    s = noisy.moment(model, NodeProblem(model, g, plans))
    found = noisy.unchanged(s, lambda s: noise_by_signs(s, 200))
    for i, place in enumerate([*s.groups.slices.values(), slice(None)]):
        truth = float(each[:, place].var(0).sum())
        assert abs(float(found.value[i]) - truth) <= 5 * float(found.se[i]) + 1e-6
        assert float(found.se[i]) < 0.2 * truth
        # And to the digit, for the signs that were drawn.
        ids = torch.arange(len(each))
        signs = [s.key.fold("signs").fold(r).integers(ids, 2) * 2 - 1 for r in range(200)]
        sums = [(v.double() @ each[:, place]).square().sum() for v in signs]
        mean = each[:, place].mean(0).square().sum()
        value = (sum(sums) / 200 - len(each) * mean) / (len(each) - 1)
        assert float(found.value[i]) == pytest.approx(float(value), rel=1e-5)


def test_the_effective_batch_of_a_uniform_sample():
    """Exact neighbourhoods: b of T without replacement are worth b / (1 - b / T) independent ones."""
    g, model = six_nodes.graph(), six_nodes.gcn()
    plans, _ = gd.method(sampler="neighbor", fanouts=-1, batch_size=2).prepare(model, g)
    problem, instrument = NodeProblem(model, g, plans), NoiseScale(m=40, signs=40)
    found = instrument.measure(noisy.moment(model, problem))
    estimate = found["effective_batch"]
    assert abs(float(estimate.value) - 2 / (1 - 2 / 4)) <= 5 * float(estimate.se)
    assert float(estimate.se) < 1


def test_clusters_are_worth_less_than_their_size():
    s = noisy.on_graph("sage", "cluster")
    found = NoiseScale(m=8, signs=4).measure(s)
    assert 0 < float(found["effective_batch"].value) < 0.8 * s.problem.batch_size
    assert "not a uniform sample" in str(found["noise_scale"])


def test_losses_that_nobody_knows_leave_it_out():
    q = noisy.Quadratic()
    found = NoiseScale().measure(noisy.moment(q.model, q.problem(4)))
    assert isinstance(found["effective_batch"], Invalid)
    assert isinstance(found["noise_scale"], Estimate)


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_a_weighted_line_is_that_of_numpy(scale):
    rng = np.random.default_rng(0)
    x, se = np.array([0.1, 0.25, 0.5, 1.0]), scale * np.array([0.1, 0.3, 0.2, 0.5])
    y = 2 + 3 * x + se * rng.standard_normal(4)
    constant, slope, misfit = st.weighted_line(*(torch.tensor(v) for v in (x, y, se)))
    (a, c), cov = np.polyfit(x, y, 1, w=1 / se, cov="unscaled")
    assert float(constant.value) == pytest.approx(c)
    assert float(slope.value) == pytest.approx(a)
    assert float(slope.se) == pytest.approx(cov[0, 0] ** 0.5)
    assert float(constant.se) == pytest.approx(cov[1, 1] ** 0.5)
    assert float(misfit) == pytest.approx((((y - c - a * x) / se) ** 2).sum() / 2)


def test_the_line_over_batch_sizes_is_noise_and_signal():
    q = noisy.Quadratic()
    others = [q.problem(b) for b in (4, 8)]
    found = NoiseScale(m=150, signs=0, others=others).measure(noisy.moment(q.model, q.problem(2)))
    trace, square = q.trace(), q.square()
    for group in trace:
        slope, floor = (found[w if group == "all" else (w, group)] for w in ("slope", "floor"))
        assert abs(float(slope.value) - trace[group]) <= 5 * float(slope.se), group
        limit = square[group] - trace[group] / q.count
        assert abs(float(floor.value) - limit) <= 5 * float(floor.se), group
    assert 0 <= float(found["misfit"].value) < 12


def test_it_goes_on_where_it_stopped():
    q = noisy.Quadratic()
    moments = [noisy.moment(q.model, q.problem(4), seed=r) for r in range(4)]
    whole, first, second = (NoiseScale(signs=0) for _ in range(3))
    for s in moments[:2]:
        whole.measure(s)
        first.measure(s)
    second.restore(first.state())
    for s in moments[2:]:
        a, b = whole.measure(s), second.measure(s)
    assert float(a["noise_scale"].value) == float(b["noise_scale"].value)
    assert float(a["noise_scale"].se) == float(b["noise_scale"].se)
    NoiseScale().restore(NoiseScale().state())


def test_the_noise_of_targets_goes_on_too():
    s = noisy.on_graph("sage", "cluster")
    first, second = NoiseScale(m=3, signs=2, keep=0.5), NoiseScale(m=3, signs=2, keep=0.5)
    first.measure(s)
    second.restore(first.state())
    later = noisy.moment(s.model, s.problem, step=2)
    a, b = (i.measure(later)["effective_batch"] for i in (first, second))
    assert float(a.value) == float(b.value)
    assert float(a.value) != float(NoiseScale(m=3, signs=2).measure(later)["effective_batch"].value)


@pytest.mark.parametrize(("model", "method"), noisy.PAIRS)
def test_it_measures_every_model_under_every_method_and_changes_nothing(model, method):
    s = noisy.on_graph(model, method)
    found = noisy.unchanged(s, NoiseScale(m=3, signs=2).measure)
    assert isinstance(found["in_batches"], Estimate)
    assert isinstance(found["effective_batch"], Estimate)
    assert isinstance(found["noise_scale"], Estimate) == (method in ("neighbor", "labor", "vr-gcn"))


def test_what_it_refuses():
    with pytest.raises(InputError, match=r"keep is 1.0"):
        NoiseScale(keep=1.0)
    with pytest.raises(InputError, match="source"):
        NoiseScale("other")
