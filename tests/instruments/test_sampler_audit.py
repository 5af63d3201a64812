"""SamplerAudit: every unbiased sampler passes, every wrong weight is caught, thresholds keep their level."""

import math

import pytest
import torch
from instruments import noisy
from scipy.stats import binom

import graphdyn as gd
from graphdyn.errors import InputError
from graphdyn.estimate import Curve, Invalid
from graphdyn.instruments.sampler_audit import SamplerAudit, Weights, z_scores
from graphdyn.node_problem import NodeProblem
from graphdyn.problem import Problem
from graphdyn.samplers import Poisson, Shuffle, Uniform

UNBIASED = {
    **noisy.METHODS,
    "ladies": {"sampler": "ladies", "nodes": 30, "batch_size": 30},
    "node": {"sampler": "node", "batch_size": 60},
    "saint-edge": {"sampler": "saint-edge", "budget": 60},
    "saint-walk": {"sampler": "saint-walk", "roots": 30, "length": 2},
    "shadow": {"sampler": "shadow", "batch_size": 30},
    "persistent": {"sampler": "neighbor", "seeds": "persistent", "tau": 10.0, "batch_size": 30},
    "mvs": {"preset": "mvs", "batch_size": 30},
}


def audited(options, **how):
    graph = noisy.small_graph()
    model = gd.GCN(graph.num_features, graph.num_classes, hidden=4, seed=0)
    plans, memory = gd.method(**options).prepare(model, graph, key=gd.Key(1))
    s = noisy.moment(model, NodeProblem(model, graph, plans, memory=memory), step=0)
    return noisy.unchanged(s, SamplerAudit(**how).measure)


@pytest.mark.parametrize("name", UNBIASED)
def test_what_is_unbiased_passes(name):
    found = audited(UNBIASED[name], draws=64)
    assert found["passed"] == 1.0, found
    assert found["excess"] <= 1
    for what in ("weight", "degree", "loss"):
        estimate = found[what]
        assert abs(float(estimate.value) - 1) <= 4.5 * float(estimate.se) + 1e-5
        assert estimate.pred == 1.0
    assert isinstance(found["z"], Curve)
    assert float(found["z"].y[-1]) <= found["worst"] + 1e-9


class Weighed(Problem):
    """Seeds and their weights, and nothing else; wrong if somebody says how."""

    def __init__(self, seeds, wrong):
        self.seeds, self.wrong, self.pool = seeds, wrong, seeds.pool
        self.num_targets, self.batch_size = seeds.pool.numel(), float(seeds.prob.sum())

    def draw(self, key):
        return self.seeds.draw(key.at(epoch=0, step=0))

    def loss(self, model, batch):
        raise AssertionError("an audit takes no losses of batches")

    def targets(self, batch):
        return self.wrong(batch.node_id, batch.weight)


POOL, ODD = torch.arange(3, 183), 10
POLICIES = {
    "uniform": lambda: Uniform(60).bind(POOL),
    "shuffle": lambda: Shuffle(60).bind(POOL),
    "poisson": lambda: Poisson(60, "degree").bind(POOL, degree=POOL % 5),
}
WRONG = {
    "all too large": ("uniform", lambda i, w: (i, 1.02 * w)),
    "means over the batch": ("poisson", lambda i, w: (i, torch.ones_like(w) / len(w))),
    "one target counts double": ("uniform", lambda i, w: (i, w * torch.where(i == ODD, 2.0, 1.0))),
    "one target counts half": ("shuffle", lambda i, w: (i, w * torch.where(i == ODD, 0.5, 1.0))),
    "by parity": ("shuffle", lambda i, w: (i, w * (1 + 0.4 * (i % 2) - 0.2))),
    "one target is never drawn": ("uniform", lambda i, w: (i[i != ODD], w[i != ODD])),
}


def audit_of_weights(policy, wrong=lambda i, w: (i, w), seed=0, **how):
    problem = Weighed(POLICIES[policy](), wrong)
    return SamplerAudit(**how).measure(noisy.moment(torch.nn.Linear(1, 1), problem, seed=seed))


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_caught(name):
    policy, wrong = WRONG[name]
    found = audit_of_weights(policy, wrong, draws=1500)
    assert found["passed"] == 0.0, found
    if "target" in name:
        assert found["excess"] > 1


@pytest.mark.parametrize("policy", POLICIES)
def test_what_is_right_passes_again_and_again(policy):
    found = [audit_of_weights(policy, seed=r, draws=64) for r in range(40)]
    assert all(f["passed"] == 1.0 for f in found)
    assert max(f["excess"] for f in found) > 0.4  # thresholds are not out of reach


def test_a_full_batch_of_wrong_weights_is_caught():
    everybody = Uniform(180).bind(POOL)
    for by in (1.0, 1.001):
        problem = Weighed(everybody, lambda i, w, by=by: (i, by * w))
        found = SamplerAudit(draws=8).measure(noisy.moment(torch.nn.Linear(1, 1), problem))
        assert found["passed"] == float(by == 1.0)


def test_scores_are_those_of_binomial_counts():
    total, b, draws = 40, 10, 200
    share = b / total
    counts = torch.tensor([30.0, 50.0, 0.0, 70.0] * 10, dtype=torch.float64)
    seen = Weights(counts / b, counts / b**2, counts, {}, draws)
    z, limit = z_scores(seen, 1e-3)
    expected = (counts - draws * share) / (draws * share * (1 - share)) ** 0.5
    assert torch.allclose(z, expected)
    assert torch.allclose(limit, limit[0].expand(40))


@pytest.mark.parametrize(("share", "draws"), [(0.3, 50), (0.01, 200), (0.5, 1000), (0.002, 256)])
def test_thresholds_keep_their_level_exactly(share, draws):
    """Tails of binomial counts, beyond the threshold, for all targets together."""
    total, level = 1000, 1e-3
    weight = 1 / (share * total)
    one = torch.ones(total, dtype=torch.float64)
    seen = Weights(one * weight, one * weight**2, one, {}, draws)
    _, limit = z_scores(seen, level)
    error = (draws * share * (1 - share)) ** 0.5
    low, high = draws * share - float(limit[0]) * error, draws * share + float(limit[0]) * error
    beyond = binom.sf(math.ceil(high) - 1, draws, share) + binom.cdf(math.floor(low), draws, share)
    assert beyond <= level / total
    normal = 4.9  # two-sided 1e-6
    tail = binom.sf(math.ceil(draws * share + normal * error) - 1, draws, share)
    if share <= 0.01:  # negative control: the normal quantile is too small for rare targets
        assert tail > 100 * level / total


def test_a_sampler_that_always_has_everybody():
    one = torch.ones(5, dtype=torch.float64)
    right = Weights(one * 7 / 5, one * 7 / 25, 7 * one, {}, 7)
    assert float(z_scores(right, 1e-3)[0].abs().max()) < 1e-6


def test_problems_that_do_not_say_their_targets():
    q = noisy.Quadratic()
    with pytest.raises(Invalid, match="does not know all targets"):
        SamplerAudit().measure(noisy.moment(q.model, q.problem(4)))


def test_strangers_are_refused():
    class Strange(NodeProblem):
        def targets(self, batch):
            return batch.seeds + 1, batch.seed_weight

    graph = noisy.small_graph()
    model = gd.GCN(graph.num_features, graph.num_classes, hidden=4, seed=0)
    plans, _ = gd.method(sampler="neighbor", batch_size=60).prepare(model, graph)
    with pytest.raises(Invalid, match="does not have"):
        SamplerAudit().measure(noisy.moment(model, Strange(model, graph, plans)))


def test_what_it_refuses():
    with pytest.raises(InputError, match="draws is 1"):
        SamplerAudit(draws=1)
    with pytest.raises(InputError, match="level is 0"):
        SamplerAudit(level=0)


def test_once_by_default():
    assert SamplerAudit().every.after(-1) == 0
    assert SamplerAudit().every.after(0) > 10**9
