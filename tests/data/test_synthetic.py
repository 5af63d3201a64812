"""Synthetic graphs carry the signal they state, measured against their closed forms."""

import math

import numpy as np
import pytest
import torch

from graphdyn.data import csbm, load, power_law
from graphdyn.data.synthetic import _bernoulli_hits
from graphdyn.errors import InputError
from graphdyn.keys import Key


def within(graph) -> float:
    label = graph.node_attrs.get("community", graph.y)
    return float((label[graph.csc.indices] == label[graph.csc.dst]).double().mean())


def is_simple_and_undirected(graph) -> bool:
    pairs = {tuple(edge) for edge in graph.edge_index.T.tolist()}
    both = all((v, u) in pairs for u, v in pairs)
    return both and len(pairs) == graph.num_edges and all(u != v for u, v in pairs)


def test_the_embedded_graph_is_of_the_size_of_cora_and_always_the_same():
    one, two = load("csbm"), load("csbm")
    assert (one.num_nodes, one.num_classes) == (2708, 7)
    assert abs(one.num_edges - 10_556) < 500
    assert [len(ids) for ids in one.split.parts().values()] == [140, 500, 1000]
    assert is_simple_and_undirected(one)
    assert torch.equal(one.csc.indices, two.csc.indices)
    assert torch.equal(one.x, two.x)


@pytest.mark.parametrize(("k", "lam"), [(2, 1.5), (5, 1.2), (3, -0.8), (4, 0.0)])
def test_csbm_degree_and_homophily_are_as_stated(k, lam):
    n, d = 4000, 12.0
    graph = csbm(n, d, k, 8, lam, 1.0, key=Key(k))
    expected = n * d  # directed edges; a Poisson-like count of n d / 2 pairs
    assert abs(graph.num_edges - expected) < 2 * 5 * math.sqrt(expected / 2) + expected / n * 2
    share = (d + (k - 1) * lam * math.sqrt(d)) / (k * d)
    error = math.sqrt(share * (1 - share) / (graph.num_edges / 2))
    assert abs(within(graph) - share) < 5 * error + 2 / n
    assert torch.bincount(graph.y).max() - torch.bincount(graph.y).min() <= 1


def test_csbm_features_for_two_classes_are_those_of_the_paper():
    n, p, mu = 4000, 50, 40.0
    graph = csbm(n, 5.0, 2, p, 0.0, mu, key=Key(1))
    sign = graph.y.double() * 2 - 1
    noise = graph.x.double()
    mean = (sign[:, None] * noise).mean(0)
    # E |mean|^2 = mu / n |u|^2 + p / (p n), and |u|^2 is chi-square with p degrees over p.
    assert abs(float(mean.square().sum()) * n / (mu + 1) - 1) < 5 * math.sqrt(2 / p)
    rest = noise - sign[:, None] * mean
    assert abs(float(rest.square().mean()) * p - 1) < 0.02
    assert torch.allclose(noise[graph.y == 0].mean(0), -noise[graph.y == 1].mean(0), atol=0.03)


@pytest.mark.parametrize("k", [2, 3, 6])
def test_csbm_features_carry_k_minus_1_directions_of_singular_value_mu(k):
    n, p, mu = 1200, 400, 900.0
    x = csbm(n, 5.0, k, p, 0.0, mu, key=Key(2)).x.double()
    values = torch.linalg.svdvals(x).square()
    # Spiked model: a signal mu above the edge shows as (mu + 1)(mu + gamma) / mu, gamma = n / p.
    shown = (mu + 1) * (mu + n / p) / mu
    spread = 4 * math.sqrt(k / p)  # random means are orthogonal only up to this
    assert ((values[: k - 1] / shown - 1).abs() < spread + 0.1).all()
    assert values[k - 1] < 1.2 * (1 + math.sqrt(n / p)) ** 2


def test_above_the_threshold_the_spectrum_tells_classes_and_below_it_does_not():
    n, d, gamma = 1200, 30.0, 4.0

    def overlap(lam, mu):
        graph = csbm(n, d, 2, int(n / gamma), lam, mu, key=Key(3))
        a = torch.zeros(n, n, dtype=torch.float64)
        a[graph.csc.dst.long(), graph.csc.indices.long()] = 1.0
        x = graph.x.double()
        m = (a - d / n) / math.sqrt(d) * lam + (mu / gamma) * (x @ x.T)
        vector = torch.linalg.eigh(m).eigenvectors[:, -1]
        agree = ((vector > 0) == (graph.y > 0)).double().mean()
        return float(torch.maximum(agree, 1 - agree))

    assert overlap(1.8, 3.0) > 0.85  # 3.24 + 9 / 4 > 1
    assert overlap(0.4, 0.6) < 0.6  # 0.16 + 0.36 / 4 < 1


def test_trials_succeed_independently_and_equally_often():
    hits = np.zeros(50)
    counts = []
    for seed in range(4000):
        found = _bernoulli_hits(50, 0.1, Key(seed).numpy())
        assert (np.diff(found) > 0).all()
        hits[found] += 1
        counts.append(found.size)
    assert np.abs(hits - 400).max() < 5 * math.sqrt(360)
    assert abs(np.mean(counts) - 5) < 5 * math.sqrt(4.5 / 4000)
    assert abs(np.var(counts) / 4.5 - 1) < 5 * math.sqrt(2 / 4000)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_impossible_and_certain_trials(p):
    assert _bernoulli_hits(7, p, Key(0).numpy()).tolist() == list(range(7)) * int(p)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"lam": 9.0}, "edge probabilities outside"),
        ({"lam": -1.0}, "edge probabilities outside"),
        ({"num_classes": 1}, "2 classes or more"),
        ({"mu": -1.0}, "mu >= 0"),
    ],
)
def test_csbm_refuses_what_is_no_probability(options, says):
    with pytest.raises(InputError, match=says):
        csbm(**options)


@pytest.mark.parametrize("make", [csbm, power_law])
def test_the_key_is_all_that_the_graph_depends_on(make):
    torch.manual_seed(0)
    one = make(num_nodes=500, key=Key(5))
    torch.manual_seed(1)
    two, other = make(num_nodes=500, key=Key(5)), make(num_nodes=500, key=Key(6))
    assert torch.equal(one.csc.indices, two.csc.indices)
    assert torch.equal(one.x, two.x)
    assert torch.equal(one.y, two.y)
    assert not torch.equal(one.csc.indptr, other.csc.indptr)


def test_power_law_is_simple_undirected_and_as_dense_and_homophilous_as_stated():
    n, d, k, h = 20_000, 16.0, 5, 0.6
    graph = power_law(n, d, 2.8, k, 4, h, key=Key(1))
    assert is_simple_and_undirected(graph)
    assert 0.9 * d < graph.num_edges / n <= d  # a few pairs repeat
    assert abs(within(graph) - (h + (1 - h) / k)) < 0.02
    assert torch.equal(graph.y, graph.node_attrs["community"])


@pytest.mark.parametrize("exponent", [2.3, 2.7, 3.5])
def test_degrees_follow_the_power_law(exponent):
    graph = power_law(50_000, 20.0, exponent, 4, 0, key=Key(2), max_degree=2000.0)
    degree = graph.csc.degree.double()
    # Hill's estimator over the tail, well below the cap and well above Poisson noise.
    low = 60.0
    tail = degree[(degree >= low) & (degree <= 600)]
    grid = np.arange(low, 601)
    candidates = np.linspace(1.5, 5, 701)
    logs = [-(a * tail.log().sum()) - len(tail) * np.log((grid**-a).sum()) for a in candidates]
    best = candidates[int(np.argmax(logs))]
    assert abs(best - exponent) < 0.35
    assert degree.max() < 2000 + 5 * math.sqrt(2000)


def test_power_law_features_are_unit_noise_around_means_at_the_stated_distance():
    graph = power_law(30_000, 4.0, 2.5, 3, 16, signal=2.0, key=Key(3))
    means = torch.stack([graph.x[graph.y == c].mean(0) for c in range(3)]).double()
    distances = torch.pdist(means)
    assert torch.allclose(distances, torch.full_like(distances, 2.0), atol=0.1)
    rest = graph.x.double() - means[graph.y]
    assert abs(float(rest.std()) - 1) < 0.01


def test_label_noise_is_the_share_of_labels_drawn_anew():
    graph = power_law(40_000, 4.0, 2.5, 4, 0, label_noise=0.4, key=Key(4))
    kept = float((graph.y == graph.node_attrs["community"]).double().mean())
    assert abs(kept - (0.6 + 0.4 / 4)) < 5 * math.sqrt(0.25 / 40_000)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"exponent": 2.0}, "exponent is 2; above 2"),
        ({"homophily": 1.5}, "are probabilities"),
        ({"num_classes": 0}, "needs a class"),
        ({"avg_degree": 0.0}, "a positive avg_degree"),
        ({"label_noise": -1}, "are probabilities"),
    ],
)
def test_power_law_refuses_what_it_cannot_draw(options, says):
    with pytest.raises(InputError, match=says):
        power_law(**{"num_nodes": 100, **options})


def test_pieces_of_edges_are_cut_without_a_seam(monkeypatch):
    from graphdyn.data import synthetic

    monkeypatch.setattr(synthetic, "EDGE_CHUNK", 1000)
    graph = power_law(5000, 10.0, 3.0, 4, 0, key=Key(5))
    assert 0.9 * 10 < graph.num_edges / 5000 <= 10
