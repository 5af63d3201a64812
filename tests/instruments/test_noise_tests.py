"""NoiseTests: every published formula written out over units, and normal units in closed form."""

import pytest
import torch
from instruments import noisy

import graphdyn as gd
from graphdyn.errors import InputError
from graphdyn.estimate import Estimate, Invalid
from graphdyn.instruments.noise_tests import NoiseTests, gsnr, of_gram, without_each
from graphdyn.statistics import jackknife

PUBLISHED = ("norm", "inner", "orthogonal", "diversity")


def units(n=8, size=5, seed=0, away=0.7):
    rng = gd.Key(seed).fold("units").generator()
    return away + torch.randn(n, size, generator=rng, dtype=torch.float64)


def by_the_papers(u):
    """The four tests as their papers have them, over lists of units."""
    n, g = len(u), sum(u) / len(u)
    square = float(g @ g)
    along = [float(v @ g) for v in u]
    mean = sum(along) / n
    across = [v - (float(v @ g) / square) * g for v in u]
    centre = sum(across) / n
    return {
        "norm": sum(float((v - g) @ (v - g)) for v in u) / (n - 1) / (n * square),
        "inner": sum((a - mean) ** 2 for a in along) / (n - 1) / (n * square**2),
        "orthogonal": sum(float((a - centre) @ (a - centre)) for a in across)
        / (n - 1)
        / (n * square),
        "diversity": sum(float(v @ v) for v in u) / float(sum(u) @ sum(u)),
    }


@pytest.mark.parametrize("n", [5, 8])
def test_the_published_tests(n):
    u = units(n)
    found = of_gram(u @ u.T)
    for name, value in by_the_papers([*u]).items():
        assert float(found[name].value) == pytest.approx(value), name


def test_the_identities():
    n, u = 8, units()
    found = {name: float(e.value) for name, e in of_gram(u @ u.T).items()}
    assert found["orthogonal"] == pytest.approx(found["norm"] - found["inner"])
    assert n * found["diversity"] == pytest.approx(1 + (n - 1) * found["norm"])


def test_errors_are_those_of_units_left_out():
    n, u = 8, units()
    found = of_gram(u @ u.T)
    without = [by_the_papers([*u[:i], *u[i + 1 :]]) for i in range(n)]
    for name in PUBLISHED:
        # The test of a batch of n, estimated from n - 1 units.
        scaled = torch.tensor([w[name] * (n - 1) / n for w in without], dtype=torch.float64)
        assert float(found[name].se) == pytest.approx(float(jackknife(scaled))), name


def test_signal_to_noise_is_signed_and_unbiased_above_and_below():
    u = units(16, 30, away=0.0)
    found = [
        of_gram(v @ v.T)["signal_to_noise"] for v in (units(16, 30, r, 0.0) for r in range(60))
    ]
    values = torch.tensor([float(f.value) for f in found])
    assert values.min() < 0 < values.max()
    assert abs(float(values.mean())) <= 5 * float(values.std()) / 60**0.5
    one = of_gram(u @ u.T)["signal_to_noise"]
    g, cov = u.mean(0), u.var(0).sum()
    assert float(one.value) == pytest.approx(float((g @ g - cov / 16) / cov))


@pytest.mark.parametrize("signal", [0.0, 0.5])
def test_gsnr_of_normal_units(signal):
    n, size, count = 8, 40, 400
    found, errors = [], []
    for seed in range(count):
        rng = gd.Key(seed).fold("gsnr").generator()
        scale = torch.linspace(0.1, 10, size, dtype=torch.float64)  # which gsnr does not see
        u = scale * (signal + torch.randn(n, size, generator=rng, dtype=torch.float64))
        found.append(float(gsnr(u)))
        errors.append(float(jackknife(without_each(u))))
    values = torch.tensor(found)
    error = float(values.std()) / count**0.5
    assert abs(float(values.mean()) - signal**2) <= 5 * error
    # Negative control: what is published holds the noise of the mean, and more of it for small n.
    plain = (values + 1 / n) * (n - 1) / (n - 3)
    assert float(plain.mean()) - signal**2 > 10 * error
    typical = torch.tensor(errors).square().mean().sqrt() / values.std()
    assert 0.7 < float(typical) < 2.0


def test_dead_parameters_are_left_out():
    u = units(8, 6)
    with_dead = torch.cat([u, torch.zeros(8, 3, dtype=torch.float64), torch.ones(8, 1).double()], 1)
    assert float(gsnr(with_dead)) == pytest.approx(float(gsnr(u)))


def test_readings_of_a_quadratic():
    q = noisy.Quadratic()
    s = noisy.moment(q.model, q.problem(4))
    found = NoiseTests(m=6).measure(s)
    rows = s.probe(6).grads[:, 0]
    for group, u in (*s.groups.split(rows).items(), ("all", rows)):

        def of(what, group=group):
            return found[what if group == "all" else (what, group)]

        for name, value in by_the_papers([*u]).items():
            assert float(of(name).value) == pytest.approx(value), (name, group)
        assert float(of("gsnr").value) == pytest.approx(float(gsnr(u)))
        assert float(of("evidence").value) == pytest.approx(-6 * float(gsnr(u)))
        assert float(of("evidence").se) == pytest.approx(6 * float(of("gsnr").se))
        assert float(of("dead").value) == 0


def test_cabs_of_a_quadratic():
    q, b, lr = noisy.Quadratic(), 4, 0.3
    optimizer = torch.optim.SGD(q.model.parameters(), lr)
    s = noisy.moment(q.model, q.problem(b), optimizer=optimizer)
    found = NoiseTests(m=60).measure(s)["cabs"]
    loss = float(q.loss(q.model, torch.arange(q.count)).detach())
    assert abs(float(found.value) - lr * q.trace()["all"] / loss) <= 5 * float(found.se)
    assert float(found.se) < 0.3 * float(found.value)


def test_cabs_is_for_plain_sgd_and_uniform_targets():
    q = noisy.Quadratic()
    for optimizer in (
        torch.optim.SGD(q.model.parameters(), 0.1, momentum=0.9),
        torch.optim.SGD(q.model.parameters(), 0.1, weight_decay=0.1),
        torch.optim.Adam(q.model.parameters()),
        torch.optim.SGD([{"params": [p]} for p in q.model.parameters()], 0.1),
    ):
        found = NoiseTests().measure(noisy.moment(q.model, q.problem(4), optimizer=optimizer))
        assert "derived for SGD" in str(found["cabs"])
    found = NoiseTests().measure(noisy.moment(q.model, q.problem(4, simple=False)))
    assert "nobody said so" in str(found["cabs"])


@pytest.mark.parametrize(("model", "method"), noisy.PAIRS)
def test_it_measures_every_model_under_every_method_and_changes_nothing(model, method):
    s = noisy.on_graph(model, method)
    if method == "full":
        with pytest.raises(Invalid, match="do not differ"):
            NoiseTests().measure(s)
        return
    found = noisy.unchanged(s, NoiseTests(m=5).measure)
    values = {k: float(e.value) for k, e in found.items() if isinstance(e, Estimate)}
    assert all(v == v for v in values.values())
    assert values["orthogonal"] == pytest.approx(values["norm"] - values["inner"], rel=1e-6)


def test_too_few_units():
    with pytest.raises(InputError, match="at least 5"):
        NoiseTests(m=4)
