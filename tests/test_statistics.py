"""Statistics of independent draws against closed forms, plain loops and keyed simulations."""

import itertools

import pytest
import torch

from graphdyn import statistics as st
from graphdyn.keys import Key


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=Key(seed).fold("test").generator(), dtype=torch.float64)


def draws(replicates, m, mean, scale, seed=0):
    """(R, m, P) normal draws and their (R, m, m) Gram matrices."""
    rows = torch.as_tensor(mean) + torch.as_tensor(scale) * normal(
        replicates, m, len(scale), seed=seed
    )
    return rows, rows @ rows.transpose(1, 2)


def student(m):
    """97.5 % quantile with m - 1 degrees of freedom."""
    return {8: 2.3646, 16: 2.1314, 12: 2.2010}[m]


def coverage(estimate, truth, m):
    return float(((estimate.value - truth).abs() <= student(m) * estimate.se).double().mean())


def pairs(m):
    return list(itertools.combinations(range(m), 2))


def test_inner_products_are_summed_in_float64_whatever_the_chunk(monkeypatch):
    rows, others = normal(3, 10).float(), normal(2, 10, seed=1).float()
    monkeypatch.setattr(st, "CHUNK", 4)
    assert torch.allclose(st.inner(rows, others), rows.double() @ others.double().T, atol=1e-14)
    assert torch.allclose(st.inner(rows), rows.double() @ rows.double().T, atol=1e-14)
    assert st.inner(rows).dtype == torch.float64


def test_u_statistics_are_means_over_pairs():
    rows = normal(5, 3)
    gram = rows @ rows.T
    squares = [rows[i] @ rows[j] for i, j in pairs(5)]
    spreads = [(rows[i] - rows[j]).square().sum() / 2 for i, j in pairs(5)]
    assert torch.allclose(st.squared_mean(gram).value, torch.stack(squares).mean())
    assert torch.allclose(st.trace_of_covariance(gram).value, torch.stack(spreads).mean())
    assert torch.allclose(st.trace_of_covariance(gram).value, rows.var(0).sum())


def test_the_formulas_of_two_batch_sizes_are_the_same_numbers():
    b, m = 7, 5
    rows = normal(m, 3)
    small, big = rows.square().sum(1).mean(), rows.mean(0).square().sum()
    gram = rows @ rows.T
    square = (m * b * big - b * small) / (m * b - b)
    trace = (small - big) / (1 / b - 1 / (m * b))
    assert torch.allclose(st.squared_mean(gram).value, square)
    assert torch.allclose(b * st.trace_of_covariance(gram).value, trace)


def test_pseudo_values_leave_one_draw_out():
    m = 6
    rows = normal(m, 3)
    gram = rows @ rows.T
    for found, statistic in (
        (st.pairs_pseudo(gram), lambda r: st.squared_mean(r @ r.T).value),
        (st.trace_pseudo(gram), lambda r: r.var(0).sum()),
    ):
        without = [statistic(rows[[j for j in range(m) if j != i]]) for i in range(m)]
        plain = torch.stack([m * statistic(rows) - (m - 1) * w for w in without])
        assert torch.allclose(found, plain)
        assert torch.allclose(found.mean(), statistic(rows))
        se = found.std() / m**0.5
        assert torch.allclose(se, st.jackknife(torch.stack(without)))


def test_two_draws_have_values_and_no_error():
    rows = normal(2, 3)
    gram = rows @ rows.T
    for estimate in (st.squared_mean(gram), st.trace_of_covariance(gram)):
        assert torch.isfinite(estimate.value)
        assert estimate.se is None
    assert st.pairs_pseudo(gram).isnan().all()


def test_leading_dimensions_are_carried_along():
    _, gram = draws(4, 6, [0.5, 0.0], [1.0, 2.0])
    for statistic in (st.squared_mean, st.trace_of_covariance):
        together = statistic(gram)
        for i in range(4):
            assert torch.allclose(together.value[i], statistic(gram[i]).value)
            assert torch.allclose(together.se[i], statistic(gram[i]).se)


@pytest.mark.parametrize("mean", [3.0, 0.0])
def test_squared_mean_and_trace_are_unbiased_and_their_intervals_cover(mean):
    scale = torch.linspace(0.5, 1.5, 30, dtype=torch.float64)
    centre = torch.zeros(30, dtype=torch.float64)
    centre[0] = mean
    rows, gram = draws(8000, 16, centre, scale)
    square, trace = st.squared_mean(gram), st.trace_of_covariance(gram)
    for estimate, truth in ((square, mean**2), (trace, float(scale.square().sum()))):
        error = float(estimate.value.std()) / 8000**0.5
        assert abs(float(estimate.value.mean()) - truth) <= 5 * error
    # Negative control: the noise that a plain square holds is seen.
    naive = rows.mean(1).square().sum(1)
    assert float(naive.mean()) - mean**2 > 20 * float(naive.std()) / 8000**0.5
    assert 0.93 <= coverage(trace, float(scale.square().sum()), 16) <= 0.97
    assert 0.93 <= coverage(square, mean**2, 16) <= (0.97 if mean else 1.0)
    # Without a mean the error is that of the quadratic part, and a little more.
    typical = square.se.square().mean().sqrt() / square.value.std()
    assert 0.95 < float(typical) < (1.1 if mean else 1.3)


def test_the_jackknife_alone_counts_the_quadratic_part_twice():
    _, gram = draws(4000, 16, torch.zeros(30, dtype=torch.float64), torch.ones(30))
    plain = st.pairs_pseudo(gram).var(-1) / 16
    true = st.squared_mean(gram).value.var()
    assert 1.8 < float(plain.mean() / true) < 2.4
    assert float(st.squared_mean(gram).se.square().mean() / true) < 1.7


@pytest.mark.parametrize("mean", [3.0, 0.0])
def test_the_quadratic_part_is_that_of_the_centred_draws(mean):
    """<x - E x, y - E y> of normal draws has the variance sum scale^4, whatever their mean is."""
    scale = torch.linspace(0.5, 1.5, 10, dtype=torch.float64)
    _, gram = draws(3000, 6, mean + torch.zeros(10), scale)
    found = st._quadratic(gram, st.with_others(gram))
    error = float(found.std()) / 3000**0.5
    assert abs(float(found.mean()) - float(scale.pow(4).sum())) <= 5 * error


def test_a_mean_of_draws():
    values = normal(6)
    found = st.mean_of(values)
    assert torch.allclose(found.value, values.sum() / 6)
    assert torch.allclose(found.se, ((values - values.mean()).square().sum() / 5 / 6).sqrt())
    assert found.n == 6
    assert st.mean_of(values[:1]).se is None


def test_covariances_of_means():
    a, b = normal(7), normal(7, seed=1)
    assert torch.allclose(st.covariance_of(a, b), torch.cov(torch.stack([a, b]))[0, 1] / 7)
    assert torch.allclose(st.covariance_of(a, a), st.mean_of(a).se ** 2)


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_a_ratio_of_means_and_its_error(correlation):
    m, replicates, truth = 16, 20000, 3.0
    a, b = normal(replicates, m), normal(replicates, m, seed=1)
    top = 3 + a
    bottom = 1 + 0.4 * (correlation * a + (1 - correlation**2) ** 0.5 * b)
    parts = [st.covariance_of(*p) for p in ((top, top), (bottom, bottom), (top, bottom))]
    found = st.ratio(top.mean(1), bottom.mean(1), tuple(parts))
    assert 0.93 <= coverage(found, truth, m) <= 0.97
    # Negative control: without the covariance the intervals are wrong.
    wrong = st.ratio(top.mean(1), bottom.mean(1), (parts[0], parts[1], 0 * parts[2]))
    assert (coverage(wrong, truth, m) > 0.97) == (correlation > 0)


def test_a_ratio_without_a_positive_denominator_is_infinite():
    one = torch.tensor(1.0)
    for bottom in (0.0, -2.0):
        found = st.ratio(one, torch.tensor(bottom), (one, one, one))
        assert found.value == torch.inf
        assert found.se == torch.inf


def test_an_average_is_debiased_by_its_own_counter():
    keep, values = 0.9, normal(7, 2)
    average = st.Average(keep)
    for value in values:
        average.add(value, value.square())
    weights = torch.tensor([(1 - keep) * keep ** (6 - i) for i in range(7)], dtype=torch.float64)
    weights /= weights.sum()
    mean, noise = average.read()
    assert torch.allclose(mean, weights @ values)
    assert torch.allclose(noise, weights.square() @ values.square())


def test_the_first_value_of_an_average_is_its_value():
    average = st.Average(0.99)
    average.add(torch.tensor(5.0), torch.tensor(2.0))
    mean, noise = average.read()
    assert torch.allclose(mean, torch.tensor(5.0))
    assert torch.allclose(noise, torch.tensor(2.0))


def test_an_average_goes_on_where_it_stopped():
    values = normal(6)
    whole, first, second = (st.Average(0.8) for _ in range(3))
    for i, value in enumerate(values):
        whole.add(value, value**2)
        if i == 3:
            second.restore(first.state())
        (first if i < 3 else second).add(value, value**2)
    assert all(torch.equal(a, b) for a, b in zip(whole.read(), second.read()))


def test_the_error_of_an_average_covers():
    truth, keep, replicates = 2.0, 0.8, 4000
    average = st.Average(keep)
    for i in range(12):
        average.add(truth + normal(replicates, seed=i), torch.ones(replicates))
    mean, noise = average.read()
    inside = (mean - truth).abs() <= 1.96 * noise.sqrt()
    assert 0.93 <= float(inside.double().mean()) <= 0.97
