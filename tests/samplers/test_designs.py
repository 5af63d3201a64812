"""Designs: sums are unbiased by enumeration and by Monte Carlo; wrong scales of the literature are found out."""

import math
from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
import torch

from graphdyn.kernels import backend, poisson, torch_poisson, torch_race
from graphdyn.kernels.race import des_raj, race
from graphdyn.keys import Key
from graphdyn.samplers import designs
from graphdyn.samplers.designs import Wheel, at_least_once, without_replacement


def weights(*values):
    return torch.tensor(values, dtype=torch.float64)


CASES = {
    "equal": weights(*[1.0] * 7),
    "ties": weights(3, 3, 1, 1, 1, 3, 2, 2),
    "zeros": weights(0, 5, 0, 1, 2, 0, 3, 1),
    "one huge": weights(1, 1e9, 1, 2, 3, 1),
    "many huge": weights(1e9, 1e9, 2e9, 1, 1, 2, 1),
    "geometric": 2.0 ** torch.arange(12, dtype=torch.float64),
    "tiny": weights(3e-30, 1e-30, 2e-30, 5e-30, 1e-30),
    "fractions": torch.linspace(0.01, 1.7, 23, dtype=torch.float64),
    "single": weights(4),
    "nobody": weights(0, 0, 0),
    "none": weights(),
}


def ids_of(weight):
    return torch.arange(weight.numel()) * 7 + 3


def oracle(weight, n):
    """pi in exact arithmetic: the largest are certain, as many as must be; the rest share what is left."""
    exact = [Fraction(w) for w in weight.tolist()]
    order = sorted((i for i, w in enumerate(exact) if w), key=lambda i: -exact[i])
    if len(order) <= n:
        return [1.0 if w else 0.0 for w in exact]
    for certain in range(n):
        rest = sum(exact[i] for i in order[certain:])
        c = (n - certain) / rest
        if c * exact[order[certain]] <= 1:
            break
    pi = dict.fromkeys(order[:certain], Fraction(1)) | {i: c * exact[i] for i in order[certain:]}
    return [float(pi.get(i, 0)) for i in range(len(exact))]


def probabilities(weight, n):
    c = float(poisson.thresholds(torch.tensor([0, weight.numel()]), weight, n))
    return torch.where(weight > 0, (c * weight).clamp(max=1.0), 0.0)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 40])
@pytest.mark.parametrize("name", CASES)
def test_poisson_probabilities_are_those_of_exact_arithmetic(name, n):
    weight = CASES[name]
    pi = probabilities(weight, n)
    expected = torch.tensor(oracle(weight, n), dtype=torch.float64)
    torch.testing.assert_close(pi, expected, rtol=1e-9, atol=1e-12)
    positive = int((weight > 0).sum())
    assert abs(float(pi.sum()) - min(n, positive)) <= 1e-6 * n
    assert bool((pi <= 1).all())
    assert bool((pi[weight > 0] > 0).all())


def test_thresholds_solve_every_row_on_its_own():
    rows = list(CASES.values())
    ends = torch.tensor([0, *(w.numel() for w in rows)]).cumsum(0)
    # Tiny rows beside huge ones share one unit, hence are left out: 1e-30 of 1e9.
    scaled = [w / w.max().clamp(min=1e-300) if w.numel() else w for w in rows]
    c = poisson.thresholds(ends, torch.cat(scaled), 3)
    for i, weight in enumerate(scaled):
        alone = poisson.thresholds(torch.tensor([0, weight.numel()]), weight, 3)
        torch.testing.assert_close(c[i : i + 1], alone, rtol=1e-12, atol=0)


def test_numba_and_torch_designs_are_equal_bit_for_bit(monkeypatch):
    weight = torch.from_numpy(np.random.default_rng(0).random(3000) ** 6)
    weight[::5] = 0
    ends, ids = torch.tensor([0, 0, 10, 11, 700, 3000]), ids_of(weight)

    def everything():
        out = [
            poisson.thresholds(ends, w, k) for k in (1, 2, 9, 500) for w in (weight, weight.float())
        ]
        out += poisson.keep(weight, ids, float(out[-1][-1]), 2**64 - 5)
        units = poisson.to_units(weight, 2.0**40)
        out.append(race(units, ids, 2**63 + 11))
        for seed in range(5):
            for design in (designs.poisson, without_replacement):
                out += [t.nan_to_num(-1) for t in design(weight, ids, 40, Key(seed))]
        return out

    compiled = everything()
    monkeypatch.setattr(backend, "_numba", lambda: False)
    for a, b in zip(compiled, everything(), strict=True):
        assert torch.equal(a, b)


def test_sums_do_not_depend_on_their_order():
    weight = torch.from_numpy(np.random.default_rng(1).random(1000))
    order = torch.from_numpy(np.random.default_rng(2).permutation(1000))
    assert poisson.thresholds(torch.tensor([0, 1000]), weight, 50) == poisson.thresholds(
        torch.tensor([0, 1000]), weight[order], 50
    )
    for design in (designs.poisson, without_replacement):
        a = design(weight, torch.arange(1000), 50, Key(1))
        b = design(weight[order], order, 50, Key(1))
        assert set(a.index.tolist()) == set(order[b.index].tolist())


@pytest.mark.parametrize("design", ["poisson", "with", "without"])
@pytest.mark.parametrize("name", CASES)
def test_everybody_is_certain_within_the_budget_and_zeros_are_never_drawn(name, design):
    weight = CASES[name]
    positive = torch.nonzero(weight).flatten()
    drawn = draw(design, weight, max(positive.numel(), 1), Key(3))
    assert torch.equal(drawn.index.sort().values, positive)
    assert torch.equal(drawn.scale, torch.ones_like(drawn.scale))
    assert torch.equal(drawn.prob, torch.ones_like(drawn.prob))
    for step in range(20):
        few = draw(design, weight, 2, Key(4, step=step))
        assert bool((weight[few.index] > 0).all())
        assert torch.unique(few.index).numel() == few.index.numel()


def draw(design, weight, n, key):
    if design == "with":
        return Wheel(weight).draw(n, key)
    return (designs.poisson if design == "poisson" else without_replacement)(
        weight, ids_of(weight), n, key
    )


R = 2000


def sample(design, weight, n, seed=0):
    """(R, M) scales of R draws, 0 where not drawn, and the reported probabilities of those drawn."""
    scale, prob = torch.zeros(R, weight.numel(), dtype=torch.float64), torch.zeros(weight.numel())
    for r in range(R):
        drawn = draw(design, weight, n, Key(seed, step=r))
        scale[r, drawn.index] = drawn.scale
        prob[drawn.index] = drawn.prob.float()
    return scale, prob.double()


@pytest.fixture(scope="module")
def samples():
    weight, n = weights(1, 2, 4, 8, 0, 3, 3), 3
    return weight, n, {d: sample(d, weight, n) for d in ("poisson", "with", "without")}


def far(values, truth):
    """Largest distance of means from the truth, in standard errors."""
    error = (values.std(0) / len(values) ** 0.5).clamp(min=1e-12)
    return float(((values.mean(0) - truth).abs() / error).max())


@pytest.mark.parametrize("design", ["poisson", "with", "without"])
def test_every_scale_has_mean_one(samples, design):
    weight, _, drawn = samples
    scale = drawn[design][0]
    assert far(scale, (weight > 0).double()) <= 5
    x = torch.linspace(-2, 5, weight.numel(), dtype=torch.float64)
    assert far((scale @ x)[:, None], x[weight > 0].sum()) <= 5


@pytest.mark.parametrize("design", ["poisson", "with"])
def test_reported_probabilities_are_the_true_ones(samples, design):
    weight, n, drawn = samples
    scale, prob = drawn[design]
    q = weight / weight.sum()
    truth = probabilities(weight, n) if design == "poisson" else 1 - (1 - q) ** n
    torch.testing.assert_close(prob, truth, rtol=1e-6, atol=0)
    assert far((scale > 0).double(), truth) <= 5


def test_multiplicities_add_up_to_the_number_of_draws(samples):
    weight, n, drawn = samples
    scale = drawn["with"][0]
    times = scale * n * (weight / weight.sum())
    torch.testing.assert_close(times, times.round(), rtol=0, atol=1e-9)
    assert bool((times.sum(1).round() == n).all())


def test_poisson_sizes_vary_around_n_as_independent_draws_do(samples):
    weight, n, drawn = samples
    size = (drawn["poisson"][0] > 0).double().sum(1)
    pi = probabilities(weight, n)
    assert abs(float(size.mean()) - n) <= 5 * float(size.std()) / R**0.5
    expected = float((pi * (1 - pi)).sum())
    spread = float(((size - n) ** 2).std()) / R**0.5
    assert abs(float(size.var()) - expected) <= 5 * spread


def test_size_without_replacement_is_exact_and_no_probability_is_claimed(samples):
    weight, n, drawn = samples
    assert bool(((drawn["without"][0] > 0).sum(1) == n).all())
    one = without_replacement(weight, ids_of(weight), n, Key(0))
    assert bool(one.prob.isnan().all())


def ordered(weight, n):
    """Every ordered sample without replacement, and its probability."""
    candidates = [i for i, w in enumerate(weight) if w]
    for order in permutations(candidates, n):
        left, p = sum(weight), Fraction(1)
        for i in order:
            p *= Fraction(weight[i], left)
            left -= weight[i]
        yield order, p


def expected_scales(weight, n, scales):
    """E of the scale of each candidate, over all ordered samples."""
    mean = [0.0] * len(weight)
    for order, p in ordered(weight, n):
        for i, s in zip(order, scales(order)):
            mean[i] += float(p) * float(s)
    return mean


def largest_bias(weight, n, scales):
    """Largest |E scale - 1|: the relative bias of a sum that one candidate carries."""
    return max(abs(m - 1) for m, w in zip(expected_scales(weight, n, scales), weight) if w)


WEIGHTS = [[1, 2, 4, 8], [3, 3, 3, 3, 3], [1, 50, 2, 0, 7], [100, 1, 1, 1]]


def ours(weight):
    units, candidates = torch.tensor(weight), sum(w > 0 for w in weight)
    return lambda order: des_raj(units[list(order)], sum(weight), candidates).tolist()


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("weight", WEIGHTS, ids=str)
def test_des_raj_is_unbiased_over_all_ordered_samples(weight, n):
    assert largest_bias(weight, n, ours(weight)) <= 1e-12


@pytest.mark.parametrize("weight", WEIGHTS[:1] + WEIGHTS[3:], ids=str)
def test_wrong_scales_without_replacement_are_found_out(weight):
    total, n = sum(weight), 3
    by_draws = largest_bias(weight, n, lambda order: [total / (n * weight[i]) for i in order])
    by_weight = largest_bias(weight, n, lambda order: [total / weight[i] for i in order])
    assert by_draws > 0.2
    assert by_weight > 0.2


def recursion(order, weight, alpha):
    """Scales of est_j = (1 - alpha_j) est_{j-1} + alpha_j t_j, step by step in exact arithmetic."""
    total, count = sum(weight), sum(w > 0 for w in weight)
    scale, seen = {}, Fraction(0)
    for j, i in enumerate(order, 1):
        p = Fraction(weight[i], total)
        t = {**dict.fromkeys(order[: j - 1], Fraction(1)), i: (1 - seen) / p}
        a = alpha(j, count)
        scale = {k: (1 - a) * scale.get(k, 0) + a * t[k] for k in t}
        seen += p
    return [scale[i] for i in order]


def papers(j, count):
    return Fraction(count, j * (count - j + 1))


@pytest.mark.parametrize("weight", WEIGHTS, ids=str)
def test_des_raj_in_closed_form_is_the_recursion(weight):
    for n in (1, 2, 3):
        for order, _ in ordered(weight, n):
            expected = [float(s) for s in recursion(order, weight, papers)]
            assert ours(weight)(order) == pytest.approx(expected, rel=1e-12)
            assert min(expected) > 0


def test_other_combinations_of_des_raj_are_unbiased_too_but_ours_is_exact_for_equal_weights():
    weight = [1, 2, 4, 8]
    assert (
        largest_bias(weight, 3, lambda o: recursion(o, weight, lambda j, _: Fraction(1, j))) < 1e-12
    )
    equal = torch.ones(6, dtype=torch.int64)
    torch.testing.assert_close(des_raj(equal[:4], 6, 6), torch.full((4,), 1.5).double())


def test_scales_without_replacement_can_lie_below_one():
    scale = des_raj(torch.tensor([1, 100]), 103, 4)  # heavy, and yet drawn late
    assert 0 < float(scale[1]) < 0.7


def test_the_race_draws_in_the_order_of_successive_sampling():
    weight, draws = [1, 2, 4, 8], 4000
    units, ids = torch.tensor(weight), torch.tensor([5, 1, 9, 70])
    seen = dict.fromkeys(permutations(range(4), 2), 0)
    for r in range(draws):
        first = torch.argsort(race(units, ids, Key(8, step=r).bits))[:2]
        seen[tuple(first.tolist())] += 1
    for order, p in ordered(weight, 2):
        p = float(p)
        assert abs(seen[order] / draws - p) <= 5 * math.sqrt(p * (1 - p) / draws), order


def test_race_and_sequential_poisson_are_different_designs():
    weight, draws = [1, 2, 4, 8], 4000
    inclusion = [0.0] * 4
    for order, p in ordered(weight, 2):
        for i in order:
            inclusion[i] += float(p)
    assert inclusion == pytest.approx([0.1774, 0.3437, 0.6315, 0.8474], abs=5e-4)
    units, ids = torch.tensor(weight), torch.arange(4)
    by_race, by_ratio = torch.zeros(4), torch.zeros(4)
    for r in range(draws):
        bits = Key(9, step=r).bits
        by_race[torch.argsort(race(units, ids, bits))[:2]] += 1 / draws
        by_ratio[torch.argsort(torch_poisson.uniform(ids, bits) / units)[:2]] += 1 / draws
    truth = torch.tensor(inclusion)
    error = (truth * (1 - truth) / draws).sqrt()
    assert bool(((by_race - truth).abs() <= 5 * error).all())
    assert bool(((by_ratio - truth).abs() > 5 * error).any())


@pytest.mark.parametrize("total", [1, 2, 3, 7, 8, 1000])
def test_points_on_the_wheel_are_uniform(total):
    wheel = Wheel(torch.ones(total, dtype=torch.float64))
    n, count = max(total - 1, 1), torch.zeros(total)
    rounds = 40 if total == 1000 else 2000
    for r in range(rounds):
        drawn = wheel.draw(n, Key(2, step=r))
        count[drawn.index] += (drawn.scale * n / total).float()
    expected = rounds * n / total
    spread = float(((count - expected) ** 2).sum() / expected)
    assert spread <= total + 5 * math.sqrt(2 * total)


def test_a_point_between_two_shares_belongs_to_the_second(monkeypatch):
    wheel = Wheel(weights(0, 3, 0, 2, 5))
    ends = {1: 0.0, 3: 0.3, 4: 0.5}
    for index, start in ends.items():
        point = torch.tensor([round(start * wheel._total)])
        monkeypatch.setattr(designs, "_below", lambda *_, point=point: point)
        assert wheel.draw(1, Key(0)).index.tolist() == [index]


@pytest.mark.parametrize("n", [1, 2, 3, 17, 1000])
def test_at_least_once_keeps_its_digits(n):
    q = weights(1e-18, 1e-9, 1e-3, 0.3, 0.999, 1.0, 0.0)
    expected = [-math.expm1(n * math.log1p(-x)) if x < 1 else 1.0 for x in q.tolist()]
    assert at_least_once(q, n).tolist() == pytest.approx(expected, rel=1e-12)


def test_the_logarithm_is_right_to_a_few_units_in_the_last_place():
    rng = np.random.default_rng(5)
    r = np.concatenate(
        [rng.random(2000), 1 - rng.random(500) * 1e-9, 2.0 ** -np.arange(54), [0.5**0.5]]
    )
    found = torch_race.log(torch.from_numpy(r)).numpy()
    expected = np.array([math.log(x) for x in r])
    assert np.all(np.abs(found - expected) <= 2e-15 * np.abs(expected))


@pytest.mark.parametrize("count", [1, 3])
def test_tiny_weights_beside_a_huge_one_keep_a_chance(count, monkeypatch):
    # In float64 the sum of all is the huge one, which would then take the only place for certain.
    weight = weights(1.0, *[1e-18] * count)
    for compiled in (True, False):
        monkeypatch.setattr(backend, "_numba", lambda compiled=compiled: compiled)
        pi = probabilities(weight, 1)
        assert float(pi[0]) == 1
        assert bool((pi[1:] > 0).all())
