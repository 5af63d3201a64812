"""Neighbour sampling: unbiased, of the stated variance, layer by layer; wrong formulas are found out."""

import math
from itertools import combinations, product

import cases
import pytest
import torch
from samplers import oracles
from samplers.graphs import AWKWARD, build
from samplers.oracles import exact, matrix, mean_estimate, worst
from scipy.stats import chi2

from graphdyn import models
from graphdyn.batch import Block, Plan
from graphdyn.errors import InputError
from graphdyn.graph import Propagation
from graphdyn.keys import Key
from graphdyn.samplers import Neighbor
from graphdyn.sparse import Sparse

MATRICES = {
    "sym": Propagation("sym", True),
    "mean": Propagation("mean", False),
    "column": Propagation("column", True),
    "sum": Propagation("none", False),
}
SYM = MATRICES["sym"]


def plans_of(name, propagation, hops, fanouts=(2,), nodes=None, **options):
    graph = AWKWARD[name]() if isinstance(name, str) else name
    nodes = torch.arange(graph.num_nodes) if nodes is None else nodes
    options = {"batch_size": len(nodes)} | options
    return graph, Neighbor(fanouts, **options).prepare(graph, propagation, hops, nodes=nodes)


def subsets(graph, propagation, v, k):
    """Every sample of row v and its estimate with scale d / k, by enumeration: {edges: (F,) sum}."""
    a, csc = graph.adjacency(propagation), graph.adjacency(propagation).csc
    every = range(int(csc.indptr[v]), int(csc.indptr[v + 1]))
    values = torch.ones(csc.num_edges) if a.values is None else a.values
    message = values.double()[:, None] * graph.x.double()[csc.indices.long()]
    own = [e for e in every if int(csc.indices[e]) == v]
    rest = [e for e in every if int(csc.indices[e]) != v]
    k = min(k, len(rest))
    exact_part = message[own].sum(0)
    scale = len(rest) / max(k, 1)
    return {
        frozenset([*own, *chosen]): exact_part + scale * message[list(chosen)].sum(0)
        for chosen in combinations(rest, k)
    }


@pytest.mark.parametrize("name", AWKWARD)
def test_the_mean_over_all_subsets_is_the_full_aggregate(name):
    for propagation, k in product(MATRICES.values(), (1, 2, 3, 20)):
        _check_all_subsets(name, propagation, k)


def _check_all_subsets(name, propagation, k):
    graph, plans = plans_of(name, propagation, 1, (k,))
    truth = exact(graph, propagation, 1)
    # Layer 0 of one plan: each drawn row must be one of the subsets, with the value enumerated.
    block = plans.plan(Key(0)).blocks[0]
    ours = oracles.aggregate(block, graph.x[block.node_id])
    start = block.adjacency.csc.indptr.tolist()
    for i, v in enumerate(block.node_id[: block.num_dst].tolist()):
        table = subsets(graph, propagation, v, k)
        value = table[frozenset(block.edge_id[start[i] : start[i + 1]].tolist())]
        torch.testing.assert_close(ours[i], value, rtol=1e-6, atol=1e-6)
        mean = torch.stack(list(table.values())).mean(0)
        torch.testing.assert_close(mean, truth[v], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "v", "k"), [("star", 0, 2), ("directed", 0, 3), ("parallel", 1, 2)]
)
def test_a_target_meets_every_subset_equally_often(name, v, k):
    graph, plans = plans_of(name, SYM, 1, (k,), torch.tensor([v]))
    table = subsets(graph, SYM, v, k)
    counts = dict.fromkeys(table, 0)
    for plan in oracles.replicate(plans, 1500):
        counts[frozenset(plan.blocks[0].edge_id.tolist())] += 1
    expected = 1500 / len(table)
    assert sum((c - expected) ** 2 / expected for c in counts.values()) < chi2.isf(
        1e-6, len(table) - 1
    )


def variances(graph, propagation, v, k):
    """S^2 of the messages into v times (1/k - 1/d) d^2, and sigma^2 d^2 / k: (F,) each, and d."""
    row = matrix(graph, propagation)[v]
    sources = graph.csc.indices[graph.csc.indptr[v] : graph.csc.indptr[v + 1]].long()
    message = row[sources][:, None] * graph.x.double()[sources]
    d = len(sources)
    return (1 / k - 1 / d) * d**2 * message.var(0), message.var(0, unbiased=False) * d**2 / k, d


@pytest.mark.parametrize(("name", "v"), [("star", 0), ("clique", 2), ("communities", 3)])
@pytest.mark.parametrize("k", [1, 2, 4])
def test_the_variance_is_that_of_sampling_without_replacement(name, v, k):
    mean = MATRICES["mean"]
    graph, plans = plans_of(name, mean, 1, (k,), torch.tensor([v]))
    stated, _, _ = variances(graph, mean, v, k)
    table = torch.stack(list(subsets(graph, mean, v, k).values()))
    torch.testing.assert_close(table.var(0, unbiased=False), stated, rtol=1e-5, atol=1e-9)
    _, error, count = mean_estimate(plans, graph.x, 800)
    measured = error[v] ** 2 * count[v]
    assert _in_band(measured, stated, table, 800)


def _in_band(measured, stated, population, replicates):
    """Chi-square band of a variance, widened by the population's kurtosis; five standard errors."""
    centred = population - population.mean(0)
    kurtosis = (centred**4).mean(0) / (centred**2).mean(0) ** 2
    relative = ((kurtosis - 1) / replicates).sqrt()
    return bool(((measured / stated - 1).abs() <= 5 * relative + 1e-6).all())


@pytest.mark.parametrize("k", [2, 3, 15])
def test_with_replacement_multiplicities_sum_to_k_and_variance_is_sigma2_over_k(k):
    mean, v = MATRICES["mean"], 0
    graph, plans = plans_of("star", mean, 1, (k,), torch.tensor([v]), replace=True)
    _, stated, d = variances(graph, mean, v, k)
    block = plans.plan(Key(0)).blocks[0]
    assert block.adjacency.csc.num_edges == k
    torch.testing.assert_close(block.scale, torch.full((k,), d / k))
    average, error, count = mean_estimate(plans, graph.x, 1000)
    truth = exact(graph, mean, 1)
    assert worst(average[v], truth[v], error[v]) <= 5
    tuples = torch.stack([s.mean(0) for s in _tuples(graph, v, min(k, 3))])
    if k <= 3:
        torch.testing.assert_close(tuples.var(0, unbiased=False), stated, rtol=1e-5, atol=1e-9)
    assert _in_band(error[v] ** 2 * count[v], stated, tuples, 1000)


def _tuples(graph, v, k):
    sources = graph.csc.indices[graph.csc.indptr[v] : graph.csc.indptr[v + 1]].long()
    return [graph.x.double()[list(t)] for t in product(sources.tolist(), repeat=k)]


def test_the_whole_row_has_no_variance():
    for name in AWKWARD:
        graph, plans = plans_of(name, SYM, 1, (12,))
        average, error, _ = mean_estimate(plans, graph.x, 3)
        torch.testing.assert_close(average, exact(graph, SYM, 1), rtol=1e-6, atol=1e-6)
        assert float(error.max()) <= 1e-7


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize(
    "name", ["star", "loops", "parallel", "directed", "communities", "weighted"]
)
def test_full_graph_weights_times_scale_are_unbiased(name, replace):
    for propagation in MATRICES.values():
        graph, plans = plans_of(name, propagation, 1, (2,), replace=replace)
        average, error, _ = mean_estimate(plans, graph.x, 200)
        assert worst(average, exact(graph, propagation, 1), error) <= 5


def renormalised(plan, x):
    """What a convolution gives that takes its degrees from the sample: the published mistake."""
    block = plan.blocks[0]
    csc = block.adjacency.csc
    row = torch.repeat_interleave(torch.arange(csc.num_dst), csc.indptr.diff().long())
    into = torch.bincount(row, minlength=block.num_src).clamp(min=1).double()
    values = (into[row] * into[csc.indices.long()]).rsqrt()
    wrong = Block(Sparse(csc, values), block.node_id)
    return block.node_id[: block.num_dst], oracles.aggregate(wrong, x[block.node_id])


def test_renormalising_on_the_sample_is_found_out():
    graph, plans = plans_of("star", SYM, 1, (2,))
    truth = exact(graph, SYM, 1)
    average, error, _ = mean_estimate(plans, graph.x, 300, estimate=renormalised)
    assert worst(average, truth, error) > 20
    everything = plans_of("star", SYM, 1, (-1,))[1]
    average, error, _ = mean_estimate(everything, graph.x, 3, estimate=renormalised)
    torch.testing.assert_close(average, truth, rtol=1e-6, atol=1e-6)  # right without sampling


def test_without_a_scale_mass_is_lost():
    graph, plans = plans_of("star", SYM, 1, (2,), estimator="unit")
    average, error, _ = mean_estimate(plans, graph.x, 200)
    assert worst(average, exact(graph, SYM, 1), error) > 20
    block = plans.plan(Key(0)).blocks[0]
    assert block.scale is None
    assert float(block.inclusion.min()) == pytest.approx(2 / 9)


def test_self_normalised_rows_have_their_full_sum():
    graph, plans = plans_of("directed", SYM, 1, (2,), estimator="hajek")
    _, plain = plans_of("directed", SYM, 1, (2,))
    for key in (Key(0), Key(1)):
        block, ht = plans.plan(key).blocks[0], plain.plan(key).blocks[0]
        row_sum = oracles.aggregate(block, torch.ones(block.num_src, 1))
        full = matrix(graph, SYM).sum(1, keepdim=True)[block.node_id[: block.num_dst]]
        torch.testing.assert_close(row_sum, full, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(block.inclusion, ht.inclusion)
        values = graph.adjacency(SYM).values[block.edge_id.long()]
        torch.testing.assert_close(block.adjacency.values, values * block.scale)


@pytest.mark.parametrize("hops", [2, 3])
@pytest.mark.parametrize("name", AWKWARD)
def test_independent_layers_are_unbiased_for_linear_networks(name, hops):
    propagation = MATRICES["column" if name in ("parallel", "loops") else "sym"]
    graph, plans = plans_of(name, propagation, hops, (2,))
    average, error, _ = mean_estimate(plans, graph.x, 250)
    assert worst(average, exact(graph, propagation, hops), error) <= 5


def every_reuse(graph, propagation, hops, k):
    """E F^hops x by enumeration, one draw of every row serving all layers."""
    a, n = matrix(graph, propagation), graph.num_nodes
    rows = []
    for v in range(n):
        sources = [u for u in range(n) if a[v, u] and u != v]
        samples = []
        for chosen in combinations(sources, min(k, len(sources))):
            row = torch.zeros(n, dtype=torch.float64)
            row[v] = a[v, v]
            row[list(chosen)] = a[v, list(chosen)] * len(sources) / len(chosen)
            samples.append(row)
        rows.append(samples)
    states = [torch.linalg.matrix_power(torch.stack(f), hops) @ graph.x for f in product(*rows)]
    return torch.stack(states).mean(0)


@pytest.mark.parametrize(("hops", "biased"), [(2, False), (3, True)])
def test_one_draw_for_all_layers_is_biased_from_three_layers_on(hops, biased):
    graph = build([(0, 1), (1, 2), (2, 3), (1, 3)], 4, [0], undirected=True)
    propagation = Propagation("sym", False)
    truth, enumerated = exact(graph, propagation, hops), every_reuse(graph, propagation, hops, 1)
    assert bool((enumerated - truth).abs().max() > 1e-2) == biased
    _, plans = plans_of(graph, propagation, hops, (1,), reuse=True)
    average, error, _ = mean_estimate(plans, graph.x, 1500)
    assert worst(average, enumerated, error) <= 5
    assert (worst(average, truth, error) > 5) == biased
    _, plans = plans_of(graph, propagation, hops, (1,))
    average, error, _ = mean_estimate(plans, graph.x, 1500)
    assert worst(average, truth, error) <= 5


def test_one_undirected_mask_in_two_layers_counts_the_way_back_too_often():
    graph, q = AWKWARD["path"](), 0.5
    propagation = Propagation("sym", False)
    a = graph.adjacency(propagation)
    src, dst = graph.csc.indices.tolist(), graph.csc.dst.tolist()
    pair = {e: (min(u, v), max(u, v)) for e, (u, v) in enumerate(zip(src, dst))}
    names = sorted(set(pair.values()))
    total = torch.zeros_like(graph.x)
    for kept in product([0, 1], repeat=len(names)):  # q = 1/2: every mask is as likely as any
        mask = torch.tensor([kept[names.index(pair[e])] / q for e in range(len(pair))])
        block = Block(Sparse(a.csc, a.values * mask))
        rows = torch.arange(graph.num_nodes)
        plan = Plan((block,), rows, rows, rows / 1.0, Key(0))
        total += oracles.network(plan, graph.x, 2) / 2 ** len(names)
    dense = matrix(graph, propagation)
    square = dense @ dense
    truth = square @ graph.x
    back_tracking = (1 / q - 1) * square.diagonal()[:, None] * graph.x
    torch.testing.assert_close(total, truth + back_tracking, rtol=1e-6, atol=1e-6)
    # Neighbour sampling draws rows, and each layer anew: no such term.
    plans = plans_of("path", propagation, 2, (1,))[1]
    average, error, _ = mean_estimate(plans, graph.x, 1000)
    assert worst(average, truth, error) <= 5
    assert worst(average, truth + back_tracking, error) > 5


@pytest.mark.parametrize("name", ["gat", "gatv2"])
def test_attention_needs_the_scale_in_its_softmax(name):
    leaves = 40
    graph = build([(v, 0) for v in range(1, leaves + 1)], leaves + 1, [0])
    model = models.build(name, 3, 3, layers=1, heads=1, hidden=4, norm="none", dropout=0.0, seed=1)
    model = model.double().eval()
    for p in model.parameters():
        p.data *= 0.3
    full = model(cases.whole(graph, model, torch.tensor([0]))).logits[0]
    plans = Neighbor((6,), batch_size=1).prepare(graph, model.propagation, model.num_hops)
    corrected, plain = [], []
    with torch.no_grad():
        for plan in oracles.replicate(plans, 600):
            x, y = graph.x[plan.node_id], graph.y[plan.seeds]
            corrected.append(model(plan.batch(x, y)).logits[0])
            bare = tuple(Block(b.adjacency, b.node_id, b.edge_id) for b in plan.blocks)
            bare = Plan(bare, plan.rows, plan.seeds, plan.seed_weight, plan.key)
            plain.append(model(bare.batch(x, y)).logits[0])
    right = (torch.stack(corrected).mean(0) - full).norm()
    wrong = (torch.stack(plain).mean(0) - full).norm()
    assert right < wrong / 4


def test_without_loops_a_uniform_scale_leaves_a_softmax_alone():
    logits = torch.randn(3, generator=Key(0).generator(), dtype=torch.float64)
    scaled = torch.softmax(logits + math.log(7 / 3), 0)
    torch.testing.assert_close(scaled, torch.softmax(logits, 0))


@pytest.mark.parametrize("name", AWKWARD)
def test_all_neighbours_are_the_exact_expansion(name):
    graph = AWKWARD[name]()
    seeds = graph.split.train
    model = models.build("gcn", 3, 3, layers=2, hidden=4)
    oracle = cases.expanded_batch(graph, model, seeds.tolist())
    plans = Neighbor((-1,), batch_size=len(seeds)).prepare(graph, model.propagation, 2, nodes=seeds)
    plan = plans.plan(Key(0))
    dst = plan.seeds
    for ours, block in zip(reversed(plan.blocks), reversed(oracle.blocks)):
        assert set(ours.node_id.tolist()) == set(block.node_id.tolist())
        assert torch.equal(ours.node_id[: ours.num_dst], dst)
        assert sorted(ours.edge_id.tolist()) == sorted(block.edge_id.tolist())
        assert bool((ours.scale == 1).all())
        assert _entries(ours) == _entries(block)
        dst = ours.node_id


def _entries(block):
    """{(target, source, edge): value} in global ids."""
    csc, ids = block.adjacency.csc, block.node_id
    row = torch.repeat_interleave(torch.arange(csc.num_dst), csc.indptr.diff().long())
    ends = zip(ids[row].tolist(), ids[csc.indices.long()].tolist(), block.edge_id.tolist())
    return dict(zip(ends, block.adjacency.values.tolist(), strict=True))


def test_fan_outs_run_from_the_seeds_outwards():
    _, plans = plans_of("clique", SYM, 2, (1, 3), torch.tensor([0]))
    outer, inner = plans.plan(Key(0)).blocks
    assert inner.adjacency.csc.degree.tolist() == [1 + 1]
    assert outer.adjacency.csc.degree.tolist() == [1 + 3, 1 + 3]


@pytest.mark.parametrize(
    ("fanouts", "hops", "words"),
    [
        ((0,), 2, "fan-out 0 is not allowed"),
        ((5, -2), 2, "fan-out -2"),
        ((5, 5), 3, "2 fan-outs were given, but the model has 3"),
        ((), 2, "0 fan-outs"),
    ],
)
def test_fan_outs_that_do_not_fit_are_refused(fanouts, hops, words):
    with pytest.raises(InputError, match=words):
        Neighbor(fanouts, batch_size=1).prepare(AWKWARD["star"](), SYM, hops)


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("name", AWKWARD)
def test_the_probability_of_every_edge_is_what_is_counted(name, replace):
    _, plans = plans_of(name, SYM, 1, (2,), replace=replace)
    stated = plans.edge_probability(0).double()
    counts = torch.zeros(len(stated))
    for plan in oracles.replicate(plans, 400):
        counts[plan.blocks[0].edge_id.long().unique()] += 1
    error = (stated * (1 - stated) / 400).sqrt()
    assert bool(((counts / 400 - stated).abs() <= 5 * error + 1e-6).all())
