"""Bandit neighbour sampling: unbiased for whatever was learned, by the law that it states."""

import math
from itertools import product

import pytest
import torch
from samplers.graphs import AWKWARD, build, hub
from samplers.oracles import exact, mean_estimate, replicate, worst
from samplers.plans import same

from graphdyn.errors import InputError
from graphdyn.graph import Propagation
from graphdyn.kernels import backend
from graphdyn.kernels.weighted import draw_replace
from graphdyn.keys import Key
from graphdyn.samplers import Bandit, Neighbor

SYM, MEAN = Propagation(), Propagation("mean", self_loops=False)


def bind(graph, propagation=SYM, hops=1, k=2, learned=True, **options):
    """Plans whose weights are random, as if something had been learned."""
    options = {"batch_size": graph.split.train.numel()} | options
    plans = Bandit((k,), **options).prepare(graph, propagation, hops)
    if learned:
        for layer, arms in enumerate(plans.arms):
            key = Key(9).fold("learned", layer)
            arms.log += 4 * key.uniform(torch.arange(arms.log.numel())).float()
            arms.refresh(torch.arange(graph.num_nodes))
    return plans


def rows_of(plans, v):
    """Positions of the edges into v that are no loops."""
    csc = plans.structure.csc
    row = range(int(csc.indptr[v]), int(csc.indptr[v + 1]))
    return [e for e in row if int(csc.indices[e]) != v]


@pytest.mark.parametrize("name", AWKWARD)
def test_two_linear_layers_are_unbiased(name):
    graph = AWKWARD[name]()
    propagation = MEAN if len(name) % 2 else SYM
    size = min(2, graph.split.train.numel())
    plans = bind(graph, propagation, 2, batch_size=size)
    mean, error, count = mean_estimate(plans, graph.x, 200)
    seen = count > 1
    assert worst(mean[seen], exact(graph, propagation, 2)[seen], error[seen]) <= 5


def test_scales_of_even_shares_are_found_out():
    """The wrong formula, m d / k for weights that are not even, is seen by the same test."""
    graph = AWKWARD["star"]()
    plans, true = bind(graph, MEAN), exact(graph, MEAN, 1)

    def wrong(plan, x):
        block = plan.blocks[0]
        csc, ids = block.adjacency.csc, block.node_id
        row = csc.dst.long()
        q = plans.arms[0].share[block.edge_id.long()].double()
        count = plans.arms[0].count[ids[row]].double()
        scale = torch.where(block.scale == 1, 1.0, block.scale.double() * q * count)
        value = plans.structure.values[block.edge_id.long()].double() * scale
        message = value[:, None] * x[ids[csc.indices.long()]]
        out = torch.zeros(csc.num_dst, x.shape[1], dtype=torch.float64)
        return ids[: csc.num_dst], out.index_add_(0, row, message)

    mean, error, count = mean_estimate(plans, graph.x, 300, estimate=wrong)
    assert worst(mean[count > 1], true[count > 1], error[count > 1]) > 5


@pytest.mark.parametrize("eta", [0.1, 0.4, 1.0])
@pytest.mark.parametrize("name", AWKWARD)
def test_shares_are_a_floor_and_a_softmax(name, eta):
    graph = AWKWARD[name]()
    plans = bind(graph, eta=eta)
    log, share = plans.arms[0].log.double(), plans.arms[0].share.double()
    for v in range(graph.num_nodes):
        row = rows_of(plans, v)
        if not row:
            continue
        total = sum(math.exp(log[e]) for e in row)
        q = [(1 - eta) * math.exp(log[e]) / total + eta / len(row) for e in row]
        assert share[row].tolist() == pytest.approx(q, rel=1e-5)
        assert float(share[row].sum()) == pytest.approx(1, abs=1e-6)
        assert float(share[row].min()) >= eta / len(row) * (1 - 1e-6)
    csc = plans.structure.csc
    assert not bool(share[csc.indices == csc.dst].any())


def fan(d):
    """Node 0 receives from 1..d; nobody else receives."""
    return build([(u, 0) for u in range(1, d + 1)], d + 1, [0])


def outcomes(share, k):
    """{(multiplicity of each edge): probability} of k independent draws."""
    out = {}
    for drawn in product(range(len(share)), repeat=k):
        times = tuple(drawn.count(e) for e in range(len(share)))
        out[times] = out.get(times, 0.0) + math.prod(share[e] for e in drawn)
    return out


def fans(d, copies=300):
    """So many targets alike: the last ``copies`` nodes each receive from 0..d - 1."""
    edges = [(u, v) for v in range(d, d + copies) for u in range(d)]
    return build(edges, d + copies, [*range(d, d + copies)])


def alike(d, k, *log):
    """Plans of :func:`fans` whose targets all have the same weights, and the shares."""
    plans = bind(fans(d), MEAN, k=k, learned=False)
    arms = plans.arms[0]
    arms.log.copy_(torch.tensor(log).repeat(300))
    arms.refresh(torch.arange(d, d + 300))
    return plans, arms.share[:d].double().tolist()


def draws(plans, d, rounds):
    """(edges 0..d - 1, scales, probabilities) of every target of some plans."""
    for plan in replicate(plans, rounds):
        block = plan.blocks[0]
        sizes = block.adjacency.csc.degree.tolist()
        columns = (block.edge_id % d, block.scale, block.prob)
        yield from zip(*(c.split(sizes) for c in columns))


@pytest.mark.parametrize(
    ("d", "k", "log"),
    [(3, 1, (0.0, 1.0, -2.0)), (3, 2, (1.0, 0.0, 3.0)), (4, 3, (0.0, 1.0, 2.0, 2.5))],
)
def test_every_outcome_has_its_probability_and_its_scales(d, k, log):
    rounds = 6
    plans, share = alike(d, k, *log)
    seen, q = {}, torch.tensor(share)
    for edge, scale, prob in draws(plans, d, rounds):
        times = (scale * k * q[edge]).round()
        torch.testing.assert_close(scale, (times / (k * q[edge])).float(), rtol=1e-5, atol=0)
        torch.testing.assert_close(prob, (1 - (1 - q[edge]) ** k).float(), rtol=1e-5, atol=0)
        assert bool((edge.diff() > 0).all())
        row = [0] * d
        for e, m in zip(edge.tolist(), times.tolist()):
            row[e] = int(m)
        assert sum(row) == k
        seen[tuple(row)] = seen.get(tuple(row), 0) + 1
    law, count = outcomes(share, k), rounds * 300
    assert set(seen) <= set(law)
    total = torch.zeros(d, dtype=torch.float64)
    for times, p in law.items():
        assert abs(seen.get(times, 0) / count - p) <= 5 * (p * (1 - p) / count) ** 0.5
        total += p * torch.tensor(times) / (k * torch.tensor(share, dtype=torch.float64))
    torch.testing.assert_close(
        total, torch.ones_like(total), rtol=1e-6, atol=0
    )  # unbiased, exactly


@pytest.mark.parametrize("k", [1, 3, 7])
def test_loops_are_kept_and_small_rows_are_whole(k):
    for name in AWKWARD:
        graph = AWKWARD[name]()
        plans = bind(graph, k=k)
        csc = plans.structure.csc
        for plan in replicate(plans, 5):
            block = plan.blocks[0]
            src = block.node_id[block.adjacency.csc.indices.long()]
            dst = block.node_id[block.adjacency.csc.dst.long()]
            for v in plan.seeds.tolist():
                mine, row = dst == v, rows_of(plans, v)
                loops = int(csc.indptr[v + 1] - csc.indptr[v]) - len(row)
                own = mine & (src == v)
                assert int(own.sum()) == loops
                assert bool((block.scale[own] == 1).all())
                others = mine & (src != v)
                if len(row) <= k:
                    assert block.edge_id[others].tolist() == row
                    assert bool((block.scale[others] == 1).all())
                else:
                    q = plans.arms[0].share[block.edge_id[others].long()]
                    times = block.scale[others] * k * q
                    torch.testing.assert_close(times, times.round(), rtol=0, atol=1e-4)
                    assert float(times.sum()) == pytest.approx(k, abs=1e-3)


def test_edges_of_weight_zero_are_never_drawn():
    graph = fan(6)
    csc = graph.adjacency(MEAN).csc
    weight = torch.tensor([1.0, 0.0, 2.0, 0.0, 3.0, 1e-30])
    for k in (1, 3, 4, 9):
        for step in range(40):
            draw = draw_replace(csc, weight, 2.0**30, torch.tensor([0]), k, Key(step).bits)
            assert not {1, 3} & set(draw.edge.tolist())
            assert (k < 4) or draw.edge.tolist() == [0, 2, 4, 5]


def test_borders_between_edges_belong_to_the_next(monkeypatch):
    """In whole parts of 1, draws often fall on a border: frequencies tell, and back-ends agree."""
    csc = fan(5).adjacency(MEAN).csc
    weight, count, rounds = torch.tensor([0.0, 1.0, 2.0, 0.0, 1.0]), torch.zeros(5), 800
    for step in range(rounds):
        args = (csc, weight, 1.0, torch.tensor([0]), 1, Key(step).fold("border").bits)
        edge = draw_replace(*args).edge
        if step < 40:
            with monkeypatch.context() as patch:
                patch.setattr(backend, "_numba", lambda: False)
                assert torch.equal(draw_replace(*args).edge, edge)
        count[edge.long()] += 1
    p = weight / 4
    assert bool(((count / rounds - p).abs() <= 5 * (p * (1 - p) / rounds).sqrt()).all())


def test_edges_are_there_as_often_as_reported():
    graph, rounds = AWKWARD["communities"](), 600
    plans = bind(graph)
    kept = torch.zeros(plans.structure.csc.num_edges, dtype=torch.float64)
    for plan in replicate(plans, rounds):
        kept[plan.blocks[0].edge_id.long()] += 1 / rounds
    prob = plans.edge_probability(0).double()
    mine = torch.isin(plans.structure.csc.dst, graph.split.train)
    error = (prob * (1 - prob) / rounds).sqrt()
    assert bool(((kept - prob).abs() <= 5 * error + 1e-9)[mine].all())
    assert float(bind(graph, k=-1).edge_probability(0).min()) == 1


def test_variance_is_that_of_draws_with_replacement():
    d, k, x = 5, 2, torch.tensor([1.0, -2.0, 0.5, 3.0, 1.5], dtype=torch.float64)
    plans, share = alike(d, k, 0.0, 1.0, -1.0, 2.0, 0.5)
    truth = float(((x**2 / torch.tensor(share)).sum() - x.sum() ** 2) / k)
    z = torch.stack([(s.double() * x[e]).sum() for e, s, _ in draws(plans, d, 6)])
    square = (z - x.sum()) ** 2
    assert abs(float(square.mean()) - truth) <= 5 * float(square.std()) / len(z) ** 0.5


def test_without_feedback_it_is_neighbour_sampling_with_replacement():
    """The same law, but for targets with no more than k sources: these keep all."""
    graph = hub(12)
    even = bind(graph, MEAN, k=3, learned=False)
    other = Neighbor((3,), replace=True, batch_size=8).prepare(graph, MEAN, 1)
    large = graph.adjacency(MEAN).csc.degree[graph.adjacency(MEAN).csc.dst.long()] > 3
    assert 0 < int(large.sum()) < large.numel()
    prob = even.edge_probability(0)
    torch.testing.assert_close(prob[large], other.edge_probability(0)[large])
    assert bool((prob[~large] == 1).all())


def test_every_backend_draws_the_same_numbers(monkeypatch):
    for name in AWKWARD:
        graph = AWKWARD[name]()
        for k in (1, 3):
            plans = bind(graph, hops=2, k=k)
            keys = list(plans.keys(Key(2), range(4)))
            compiled = [plans.plan(key) for key in keys]
            with monkeypatch.context() as patch:
                patch.setattr(backend, "_numba", lambda: False)
                plain = [plans.plan(key) for key in keys]
            assert all(same(a, b) for a, b in zip(compiled, plain))


def test_layers_have_weights_of_their_own():
    graph = hub(20)
    plans = bind(graph, MEAN, 2, k=1, learned=False)
    row = rows_of(plans, 0)
    heavy = torch.tensor([row[0]])
    plans.arms[1].learn(torch.tensor([0]), heavy, torch.tensor([50.0]))
    assert float(plans.arms[1].share[row[0]]) == pytest.approx(0.6 + 0.4 / 20, rel=1e-5)
    assert float(plans.arms[0].share[row[0]]) == pytest.approx(1 / 20)
    drawn = [[], []]
    for plan in replicate(plans, 60):
        for layer, block in enumerate(plan.blocks):
            ids = block.node_id[block.adjacency.csc.dst.long()]
            drawn[layer] += block.edge_id[ids == 0].tolist()
    assert drawn[0].count(row[0]) > 0.4 * len(drawn[0])  # the first layer is the second hop
    assert drawn[1].count(row[0]) < 0.3 * len(drawn[1])


def test_learning_never_overflows_and_what_fell_behind_comes_back():
    plans = bind(fan(4), MEAN, k=1, learned=False)
    arms, zero = plans.arms[0], torch.tensor([0])
    for step in range(1000):  # as much as 100,000 steps of gain 25
        arms.learn(zero, torch.tensor([step % 3]), torch.tensor([2500.0]))
    assert bool(torch.isfinite(arms.log).all())
    assert bool((arms.log <= 0).all())
    assert float(arms.log.max()) == 0
    assert float(arms.share.sum()) == pytest.approx(1, abs=1e-6)
    assert float(arms.share[3]) == pytest.approx(0.1, rel=1e-5)
    for _ in range(30):
        arms.learn(zero, torch.tensor([3]), torch.tensor([1.0]))
    assert float(arms.share[3]) == pytest.approx(0.7, rel=1e-3)


@pytest.mark.parametrize("eta", [0.0, -0.5, 1.1])
def test_shares_without_a_floor_are_refused(eta):
    with pytest.raises(InputError, match=rf"eta is {eta}; it must lie in \(0, 1\]"):
        bind(fan(3), eta=eta)


def test_other_estimators_are_refused():
    with pytest.raises(InputError, match="unknown estimator 'hajek'"):
        bind(fan(3), estimator="hajek")
