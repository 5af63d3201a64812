"""Random nodes: exact over every subset; what is published is biased, and the test sees it."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from math import comb

import oracles
import pytest
import torch
from samplers.graphs import AWKWARD, star
from samplers.oracles import layer_output, loss_estimate, matrix, mean_estimate, replicate, worst
from samplers.outcomes import (
    dense,
    expect,
    loss_weight,
    relative_error,
    same_plan,
    subsets,
    together,
)
from scipy.stats import chi2

from graphdyn.errors import InputError
from graphdyn.graph import Propagation
from graphdyn.kernels import backend
from graphdyn.keys import Key
from graphdyn.samplers import RandomNode, build
from graphdyn.samplers.parts import cross_scale

SYM, MEAN = Propagation(), Propagation("mean", self_loops=False)
PROPAGATIONS = {
    "sym": SYM,
    "mean": MEAN,
    "column": Propagation("column"),
    "none": Propagation("none", self_loops=False),
}


def every(graph, size):
    return subsets([(v,) for v in range(graph.num_nodes)], size)


def bind(graph, size=3, propagation=SYM, **options):
    size = min(size, graph.num_nodes)
    return RandomNode(size, **options).prepare(graph, propagation, 2)


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("name", AWKWARD)
def test_p16_the_scale_is_exact_over_all_subsets(name, size):
    graph = AWKWARD[name]()
    n = graph.num_nodes
    if n < size:
        return
    a = matrix(graph, SYM)
    scale = torch.full((n, n), cross_scale(n, size), dtype=torch.float64).fill_diagonal_(1)
    both = together(every(graph, size), n)
    assert (a * scale * both / both.diagonal()[:, None] - a).abs().max() < 1e-12
    wrong = a * (n / size) * both / both.diagonal()[:, None]
    assert size == n or not torch.allclose(wrong, a, atol=1e-3)


@pytest.mark.parametrize("norm", PROPAGATIONS)
@pytest.mark.parametrize("name", ["star", "isolated", "loops", "parallel", "weighted"])
def test_p16_plans_are_unbiased_over_all_subsets(name, norm):
    graph, propagation = AWKWARD[name](), PROPAGATIONS[norm]
    n, size = graph.num_nodes, min(3, graph.num_nodes)
    rows, weight = expect(bind(graph, size, propagation), every(graph, size), n)
    torch.testing.assert_close(rows, matrix(graph, propagation), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weight, loss_weight(graph), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("estimator", ["unit", "published"])
@pytest.mark.parametrize("name", ["star", "clique", "communities", "directed"])
def test_without_scales_the_rows_are_biased(name, estimator):
    graph = AWKWARD[name]()
    rows, _ = expect(bind(graph, estimator=estimator), every(graph, 3), graph.num_nodes)
    assert relative_error(rows, matrix(graph, SYM)) > 0.2


@pytest.mark.parametrize("propagation", PROPAGATIONS.values(), ids=PROPAGATIONS.keys())
@pytest.mark.parametrize("name", AWKWARD)
def test_published_is_the_propagation_matrix_of_the_subgraph(name, propagation):
    graph = AWKWARD[name]()
    for plan in replicate(bind(graph, 4, propagation, estimator="published"), 6):
        nodes = plan.node_id
        place = torch.full((graph.num_nodes,), -1).scatter(0, nodes, torch.arange(len(nodes)))
        edges = place[graph.edge_index]
        inside = (edges >= 0).all(0)
        weight = None if graph.edge_weight is None else graph.edge_weight[inside]
        args = edges[:, inside], len(nodes)
        if propagation.norm == "column":
            plain = oracles.adjacency(*args, "none", propagation.self_loops, weight)
            truth = plain / plain.sum(0).clamp(min=1e-300)
        else:
            truth = oracles.adjacency(*args, propagation.norm, propagation.self_loops, weight)
        found = dense(plan.blocks[0], graph.num_nodes)[nodes][:, nodes]
        torch.testing.assert_close(found, truth, rtol=1e-6, atol=1e-7)
        assert plan.blocks[0].scale is None
        assert plan.seed_weight.tolist() == [pytest.approx(1 / max(len(plan.seeds), 1))] * len(
            plan.seeds
        )


@pytest.mark.parametrize("independent", [False, True])
@pytest.mark.parametrize("name", AWKWARD)
def test_drawn_plans_are_unbiased(name, independent):
    graph = AWKWARD[name]()
    plans = bind(graph, 4, independent=independent)
    mean, error, count = mean_estimate(plans, graph.x, 80, estimate=layer_output(0))
    seen, truth = count > 9, matrix(graph, SYM) @ graph.x
    assert worst(mean[seen], truth[seen], error[seen]) <= 5
    loss, error = loss_estimate(plans, graph.x[:, 0], 80)
    assert worst(loss, float(graph.x[graph.split.train, 0].mean()), error) <= 5


def test_every_node_once_an_epoch_in_batches_of_equal_size():
    graph = star()
    plans = bind(graph, 4)
    assert plans.num_batches == 3
    orders = set()
    for epoch in range(3):
        batches = [plans.plan(key).node_id for key in plans.keys(Key(1), range(epoch, epoch + 1))]
        assert torch.cat(batches).sort().values.tolist() == list(range(10))
        assert sorted(len(b) for b in batches) == [3, 3, 4]
        assert all(b.tolist() == sorted(b.tolist()) for b in batches)
        orders.add(str(batches))
    assert len(orders) == 3


@pytest.mark.parametrize("independent", [False, True])
def test_every_subset_is_equally_likely(independent):
    graph, total = AWKWARD["parallel"](), 800
    plans = bind(graph, 2, estimator="unit", independent=independent)
    sizes = Counter(len(plan.node_id) for plan in replicate(plans, 3))
    assert sizes == ({2: 3} if independent else {1: 1, 2: 2})
    drawn = Counter(tuple(plan.node_id.tolist()) for plan in replicate(plans, total, Key(2)))
    for size in sizes:
        counts = [c for nodes, c in drawn.items() if len(nodes) == size]
        assert len(counts) == comb(5, size)
        mean = sum(counts) / len(counts)
        assert sum((c - mean) ** 2 / mean for c in counts) < chi2.isf(1e-6, len(counts) - 1)


def test_independent_steps_do_not_know_of_each_other():
    plans = bind(star(), 4, independent=True)
    epoch = torch.cat([plans.plan(key).node_id for key in plans.keys(Key(0), range(1))])
    assert len(epoch) == 12 > len(epoch.unique())


def test_ht_never_leaves_a_node_alone():
    graph = AWKWARD["directed"]()
    plans = RandomNode(2).prepare(graph, SYM, 2)
    sizes = {plan.num_nodes for plan in replicate(plans, plans.num_batches)}
    assert sizes <= {2, 3}
    assert {p.num_nodes for p in replicate(bind(graph, 2, independent=True), 5)} == {2}


@pytest.mark.parametrize("estimator", ["ht", "unit", "published"])
def test_probabilities_are_reported(estimator):
    graph = AWKWARD["communities"]()
    plans = bind(graph, 4, estimator=estimator)
    (table,) = plans.target_probability()
    count = torch.zeros(12)
    for plan in replicate(plans, 30):
        count[plan.node_id] += 1
    torch.testing.assert_close(table * 30, count)
    (block,) = plans.plan(Key(0)).blocks
    loops = block.adjacency.csc.indices == block.adjacency.csc.dst
    assert not loops.all()
    other = (block.num_dst - 1) / 11
    torch.testing.assert_close(block.inclusion, torch.where(loops, 1.0, other))


def test_p36_inductive_plans_hold_training_nodes_alone():
    graph = AWKWARD["communities"]()
    train = set(graph.split.train.tolist())
    for estimator in ("ht", "published"):
        plans = bind(graph, 2, estimator=estimator, inductive=True)
        seen = set()
        for plan in replicate(plans, plans.num_batches):
            seen |= set(plan.node_id.tolist())
            assert plan.seeds.tolist() == plan.node_id.tolist()
        assert seen == train
    inside = sorted(train)
    plans = bind(graph, 3, inductive=True)
    rows, weight = expect(plans, subsets([(v,) for v in inside], 3), graph.num_nodes)
    kept = graph.edge_index[:, torch.isin(graph.edge_index, graph.split.train).all(0)]
    truth = oracles.adjacency(kept, graph.num_nodes)
    torch.testing.assert_close(rows[inside], truth[inside], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weight, loss_weight(graph), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("independent", [False, True])
@pytest.mark.parametrize("estimator", ["ht", "unit", "published"])
def test_p33_the_same_plan_on_numba_torch_and_any_number_of_threads(
    estimator, independent, monkeypatch
):
    for name in AWKWARD:
        graph = AWKWARD[name]()
        plans = bind(graph, 4, estimator=estimator, independent=independent)
        keys = list(plans.keys(Key(4), range(2)))
        alone = [plans.plan(key) for key in keys]
        with ThreadPoolExecutor(4) as pool:
            together_ = list(pool.map(plans.plan, reversed(keys)))
        assert all(same_plan(a, b) for a, b in zip(alone, reversed(together_)))
        with monkeypatch.context() as patch:
            patch.setattr(backend, "_numba", lambda: False)
            plain = bind(graph, 4, estimator=estimator, independent=independent)
            assert all(same_plan(a, plain.plan(key)) for a, key in zip(alone, keys))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "at least 1"),
        ({"batch_size": 11}, "10 nodes to draw from"),
        ({"batch_size": 1}, "at least 2"),
        ({"batch_size": 4, "estimator": "hajek"}, "unknown estimator"),
        ({"batch_size": 4, "inductive": True}, "3 nodes to draw from"),
    ],
)
def test_bad_options_are_named(options, words):
    with pytest.raises(InputError, match=words):
        RandomNode(**options).prepare(star(), SYM, 2)


def test_a_seed_that_induction_excludes_is_named():
    with pytest.raises(InputError, match="seed node 2 is not a training node"):
        RandomNode(2, inductive=True).prepare(star(), SYM, 2, nodes=torch.tensor([0, 2]))


def test_a_single_node_needs_no_other():
    plan = build("node", batch_size="1").prepare(AWKWARD["single"](), SYM, 2).plan(Key(0))
    assert plan.node_id.tolist() == [0]
    assert plan.seed_weight.tolist() == [1]
