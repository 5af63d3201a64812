"""TailIndex: stable laws made by the method of Chambers, Mallows and Stuck; what fakes heavy tails, and is told."""

import math

import pytest
import torch
from instruments import noisy

import graphdyn as gd
from graphdyn.errors import InputError
from graphdyn.estimate import Estimate, Invalid
from graphdyn.instruments.instrument import Need
from graphdyn.instruments.tail_index import TailIndex, gaussian_like, tail_index
from graphdyn.problem import FunctionProblem

K = 10_000


def stable(alpha, *shape, seed=0):
    """Symmetric stable numbers (Chambers, Mallows & Stuck 1976, equation 2.3 with beta 0)."""
    rng = gd.Key(seed).fold("stable").generator()
    angle = (torch.rand(*shape, generator=rng, dtype=torch.float64) - 0.5) * math.pi
    wait = -torch.rand(*shape, generator=rng, dtype=torch.float64).log()
    rest = (torch.cos((1 - alpha) * angle) / wait) ** ((1 - alpha) / alpha)
    return torch.sin(alpha * angle) / torch.cos(angle) ** (1 / alpha) * rest


def by_the_book(x):
    """The estimator over lists, zeros left out."""
    block = math.isqrt(len(x))
    x = [float(v) for v in x if v != 0]
    x = x[: len(x) // block * block]
    sums = [sum(x[i : i + block]) for i in range(0, len(x), block)]
    logs = [sum(math.log(abs(v)) for v in y) / len(y) for y in (sums, x)]
    return math.log(block) / (logs[0] - logs[1])


@pytest.mark.parametrize("zeros", [0, 1, 40, 250])
def test_the_formula(zeros):
    x = stable(1.5, 400)
    x[gd.Key(0).permutation(400)[:zeros]] = 0
    found, share = tail_index(x[None])
    assert float(found.value) == pytest.approx(by_the_book(x))
    assert float(share) == pytest.approx(zeros / 400)


@pytest.mark.parametrize("alpha", [0.8, 1.2, 1.5, 2.0])
def test_stable_laws_have_their_index(alpha):
    """Chambers, Mallows and Stuck at alpha 2 gives normal numbers."""
    found, _ = tail_index(stable(alpha, 40, K))
    error = float(found.value.std()) / 40**0.5
    assert abs(float(found.value.mean()) - alpha) <= 5 * error + 0.01 * alpha
    typical = found.se.square().mean().sqrt() / found.value.std()
    assert 0.7 < float(typical) < 1.4


def test_its_intervals_cover():
    found, _ = tail_index(stable(1.5, 1000, 2500))
    inside = (found.value - 1.5).abs() <= 1.96 * found.se
    assert 0.93 <= float(inside.double().mean()) <= 0.97


def test_coordinates_must_not_be_pooled():
    """Normal numbers of unequal scales, in no order, look heavy; one whose scale drifts does not."""
    scales = 10 ** torch.linspace(-3, 3, K, dtype=torch.float64)
    x = scales * stable(2.0, 20, K)
    pooled, _ = tail_index(x[:, gd.Key(5).permutation(K)])
    assert float(pooled.value.mean()) < 1.2
    drifting, _ = tail_index(x)
    assert float(drifting.value.mean()) == pytest.approx(2, abs=0.25)


def test_the_surrogate_is_gaussian_and_as_sparse():
    heavy = stable(1.2, 20, K)
    heavy[:, ::3] = 0
    normal = gaussian_like(heavy, gd.Key(2))
    assert torch.equal(normal == 0, heavy == 0)
    found, share = tail_index(normal)
    assert float(found.value.mean()) == pytest.approx(2, abs=0.1)
    assert float(share[0]) == pytest.approx(1 / 3, abs=0.001)


def test_the_error_of_the_default_window():
    found, _ = tail_index(stable(2.0, 200, 1024))
    assert float(found.se.mean()) == pytest.approx(0.23, abs=0.04)


def test_zeros_that_are_kept_would_look_heavy():
    x = stable(2.0, 20, K)
    mask = gd.Key(3).uniform(torch.arange(20 * K)).view(20, K) < 0.9
    sparse = torch.where(mask, 0.0, x)
    found, share = tail_index(sparse)
    assert float(found.value.mean()) == pytest.approx(2, abs=0.15)
    assert float(share.mean()) == pytest.approx(0.9, abs=0.01)


def noise_problem(alpha, drift=0.0):
    """Gradients that are stable noise around a mean: loss = <noise, theta>."""
    model = torch.nn.Linear(3, 1, bias=False)

    def draw(key):
        return stable(alpha, 3, seed=key.bits % 2**31).float() + 5 + drift * key.step

    def loss(net, noise):
        return (net.weight[0] * noise).sum()

    return model, FunctionProblem(loss, draw, num_targets=10, batch_size=1)


@pytest.mark.parametrize("alpha", [1.2, 2.0])
def test_over_steps_the_mean_and_its_drift_are_no_tail(alpha):
    model, problem = noise_problem(alpha, drift=0.001)
    instrument = TailIndex(window=2048)
    for step in range(1, 2049):
        key = gd.Key(0).at(step=step)
        model.weight.grad = problem.draw(key)[None]
        found = instrument.measure(noisy.moment(model, problem, step=step))
        assert (found == {}) == (step < 2048)
    estimate = found["projection"]
    assert abs(float(estimate.value) - alpha) <= 5 * float(estimate.se)
    assert estimate.pred == 2.0
    assert set(found) >= {"projection", "norm", "surrogate", "zeros", ("projection", "weight")}
    assert float(found["zeros"].value) == 0
    # Negative control: with the mean left in, sums grow with their length.
    direction = torch.randn(3, generator=gd.Key(9).generator())
    plain = torch.stack([problem.draw(gd.Key(0).at(step=t)) for t in range(1, 2049)]) @ direction
    assert float(tail_index(plain[None])[0].value) < 1.2 or alpha < 2


def test_over_batches():
    model, problem = noise_problem(2.0)
    s = noisy.moment(model, problem)
    found = noisy.unchanged(s, TailIndex("batches").measure)
    estimate = found["projection"]
    assert abs(float(estimate.value) - 2) <= 5 * float(estimate.se)
    assert not s._made.get("probe")


def test_it_goes_on_where_it_stopped():
    model, problem = noise_problem(1.5)
    whole, second = TailIndex(window=64), TailIndex(window=64)
    for step in range(1, 65):
        model.weight.grad = problem.draw(gd.Key(0).at(step=step))[None]
        s = noisy.moment(model, problem, step=step)
        if step == 30:
            first, second = second, TailIndex(window=64)
            second.restore(first.state())
        a, b = whole.measure(s), second.measure(s)
    assert float(a["projection"].value) == float(b["projection"].value)
    TailIndex().restore(TailIndex().state())


@pytest.mark.parametrize(("model", "method"), noisy.PAIRS)
def test_it_measures_every_model_under_every_method_and_changes_nothing(model, method):
    s = noisy.on_graph(model, method)
    instrument = TailIndex(window=64)
    for _ in range(64):
        found = noisy.unchanged(s, instrument.measure)
    assert float(found["zeros"].value) == 1  # the same gradient 64 times
    assert isinstance(found["projection"], Estimate)


def test_what_it_needs():
    assert TailIndex().needs == Need.NOTHING
    assert TailIndex("batches").needs == Need.PROBLEM
    model, problem = noise_problem(2.0)
    with pytest.raises(Invalid, match="no step"):
        TailIndex().measure(noisy.moment(model, problem, step=0))
    for options in ({"window": 63}, {"window": 32}, {"source": "both"}):
        (name,) = options
        with pytest.raises(InputError, match=f"{name} is "):
            TailIndex(**options)
