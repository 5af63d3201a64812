"""GraphSAINT: closed forms against every sequence of draws; published mistakes are found out."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import cache

import oracles
import pytest
import torch
from samplers.graphs import AWKWARD, build, double_star
from samplers.oracles import matrix, replicate
from samplers.outcomes import (
    expect,
    loss_weight,
    relative_error,
    same_plan,
    sequences,
    together,
)
from scipy.stats import chi2

from graphdyn.errors import InputError
from graphdyn.graph import Propagation
from graphdyn.kernels import backend
from graphdyn.keys import Key
from graphdyn.samplers import SaintEdge, SaintNode, SaintWalk, saint, saint_walk
from graphdyn.samplers import build as by_name
from graphdyn.samplers.saint import any_of, both_of
from graphdyn.samplers.saint_walk import WalkDesign
from graphdyn.samplers.sampler import Task
from graphdyn.samplers.subgraph import Ground

SYM, MEAN = Propagation(), Propagation("mean", self_loops=False)
SAMPLERS = {
    "node": SaintNode(4),
    "node-degree": SaintNode(4, importance="degree"),
    "edge": SaintEdge(3),
    "walk": SaintWalk(2, 3, coverage=2000),
}


def bind(sampler, graph, propagation=SYM, **options):
    recipe = SAMPLERS[sampler] if isinstance(sampler, str) else sampler
    recipe = type(recipe)(**vars(recipe) | options)
    return recipe.prepare(graph, propagation, 2, key=Key(1))


def neighbours(graph):
    """Of the simple undirected graph."""
    out = [set() for _ in range(graph.num_nodes)]
    for u, v in graph.edge_index.t().tolist():
        if u != v:
            out[u].add(v)
            out[v].add(u)
    return [sorted(n) for n in out]


def importance(graph, propagation, kind):
    """(N,) what nodes are drawn by: squared weights of the edges that leave (or degrees), none of them 0."""
    n = graph.num_nodes
    many = oracles.adjacency(graph.edge_index, n, "none", propagation.self_loops)
    squares = matrix(graph, propagation) ** 2 / many.clamp(
        min=1
    )  # parallel edges share their value
    q = (many if kind == "node-degree" else squares).sum(0)
    if not (q > 0).any():
        return torch.full_like(q, 1 / len(q))
    q = torch.where(q > 0, q, q[q > 0].min())
    return q / q.sum()


def walks(graph, length):
    """Every walk and its probability: uniform roots, uniform steps, no neighbours no step."""
    near, n = neighbours(graph), graph.num_nodes
    paths = [((v,), 1 / n) for v in range(n)]
    for _ in range(length):
        paths = [
            ((*path, to), p / max(len(near[path[-1]]), 1))
            for path, p in paths
            for to in near[path[-1]] or [path[-1]]
        ]
    return [path for path, _ in paths], [p for _, p in paths]


def draws(sampler, graph, propagation=SYM):
    """What one draw may bring, how likely, and how many draws there are."""
    recipe = SAMPLERS[sampler]
    if sampler.startswith("node"):
        q = importance(graph, propagation, sampler).tolist()
        return [(v,) for v in range(graph.num_nodes)], q, recipe.budget
    length = getattr(recipe, "length", 1)
    return *walks(graph, length), getattr(recipe, "roots", None) or recipe.budget


def merged(units, prob):
    """Walks over the same nodes are one."""
    total = Counter()
    for unit, p in zip(units, prob):
        total[tuple(sorted(set(unit)))] += p
    return list(total), list(total.values())


def outcomes(sampler, graph, propagation=SYM):
    units, prob, m = draws(sampler, graph, propagation)
    return sequences(*merged(units, prob), m)


def tiny():
    """A triangle with a tail, a loop, a doubled edge, one way only in places; node 4 is isolated."""
    edges = [(0, 1), (1, 0), (1, 2), (2, 0), (0, 2), (2, 3), (2, 3), (3, 3)]
    return build(edges, 5, [0, 3, 4])


SMALL = {"tiny": tiny, "parallel": AWKWARD["parallel"], "edgeless": AWKWARD["edgeless"]}
SMALL |= {"single": AWKWARD["single"], "pair": lambda: build([(0, 1), (1, 0)], 2, [0, 1])}


# Closed forms ----------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["node", "node-degree", "edge"])
@pytest.mark.parametrize("name", ["tiny", "parallel"])
def test_p17_the_closed_form_is_exact_over_all_draws(name, sampler):
    graph = SMALL[name]()
    n = graph.num_nodes
    units, prob, m = draws(sampler, graph)
    one = together([(p, sorted(set(u)), 1) for u, p in zip(units, prob)], n)
    both, hit = together(outcomes(sampler, graph), n), one.diagonal()
    assert (any_of(hit, m) - both.diagonal()).abs().max() < 1e-12
    u, v = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    away = u != v
    ours = both_of(hit[u[away]], hit[v[away]], one[away], m)
    assert (ours - both[away]).abs().max() < 1e-12


@pytest.mark.parametrize("m", [1, 2, 1000, 10**6])
@pytest.mark.parametrize(
    "hits", [(1e-12, 3e-13, 0.0), (1e-7, 1e-9, 5e-10), (0.3, 1e-15, 1e-16), (0.5, 0.5, 0.0)]
)
def test_the_closed_form_does_not_cancel(hits, m):
    """Against rational arithmetic; the textbook form has lost every digit at the first of these."""
    a, b, c = (Fraction(h) for h in hits)
    if m > 1000 and max(hits) > 1e-3:
        return
    if m > 1000:  # the binomial series, whose terms fall by m h < 1

        def power(h):
            total, term = Fraction(0), Fraction(1)
            for k in range(1, 12):
                term *= -h * (m - k + 1) / Fraction(k)
                total += term
            return total
    else:

        def power(h):
            return (1 - h) ** m - 1

    p_v = -power(b)
    p_uv = -power(a) - power(b) + power(a + b - c)
    t = [torch.tensor(h, dtype=torch.float64) for h in hits]
    assert float(any_of(t[1], m)) == pytest.approx(float(p_v), rel=1e-12)
    assert float(both_of(*t, m)) == pytest.approx(
        float(p_uv), rel=1e-9, abs=1e-12 * float(any_of(t[0], m)) * float(p_v)
    )


@pytest.mark.parametrize("sampler", ["node", "node-degree", "edge"])
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("propagation", [SYM, MEAN], ids=["sym", "mean"])
def test_p17_plans_are_unbiased_over_all_draws(name, sampler, propagation):
    graph = SMALL[name]()
    plans, every = bind(sampler, graph, propagation), outcomes(sampler, graph, propagation)
    rows, weight = expect(plans, every, graph.num_nodes)
    torch.testing.assert_close(rows, matrix(graph, propagation), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weight, loss_weight(graph), rtol=1e-5, atol=1e-7)
    alone = together(every, graph.num_nodes).diagonal()
    torch.testing.assert_close(plans.target_probability()[0].double(), alone, rtol=1e-6, atol=1e-7)
    assert plans.num_batches == -int(-graph.num_nodes // float(alone.sum() + 1e-9))


# Two draws: few enough to enumerate on every awkward graph.
PAIRS = {
    "node": SaintNode(2),
    "node-degree": SaintNode(2, importance="degree"),
    "edge": SaintEdge(2),
    "walk": SaintWalk(2, 2, coverage=40_000),
}


@cache
def pairs(name, sampler):
    """(N, N) how likely two nodes are together, over every sequence of two draws."""
    graph = AWKWARD[name]()
    if sampler.startswith("node"):
        units = [(v,) for v in range(graph.num_nodes)]
        prob = importance(graph, SYM, sampler).tolist()
    else:
        units, prob = merged(*walks(graph, 2 if sampler == "walk" else 1))
    return together(sequences(units, prob, 2), graph.num_nodes)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", AWKWARD)
def test_p17_scales_are_the_inverse_of_what_is_enumerated(name, sampler):
    graph = AWKWARD[name]()
    plans, both = PAIRS[sampler].prepare(graph, SYM, 2), pairs(name, sampler)
    src, dst = (t.long() for t in (plans.structure.csc.indices, plans.structure.csc.dst))
    product = plans.edge_scale.double() * both[src, dst] / both[dst, dst]
    tolerance = 0.02 if sampler == "walk" else 1e-5
    assert (product - 1).abs().max() <= tolerance
    assert (plans.prob / both.diagonal() - 1).abs().max() <= tolerance
    assert (product[src == dst] == 1).all()


def test_p17_walks_are_unbiased_once_counted():
    graph = tiny()
    plans = bind("walk", graph, coverage=100_000)
    rows, weight = expect(plans, outcomes("walk", graph), 5)
    assert relative_error(rows, matrix(graph, SYM)) < 0.005
    assert relative_error(weight, loss_weight(graph)) < 0.005


@pytest.mark.parametrize("length", [2, 4])
def test_the_error_of_counting_falls_with_the_root_of_coverage(length):
    graph = AWKWARD["communities"]()
    ground = Ground.of(Task(graph, SYM, 1, None, Key(0)), inductive=False)
    units, prob = walks(graph, length)
    one = together([(p, sorted(set(u)), 1) for u, p in zip(units, prob)], graph.num_nodes)
    src, dst = graph.edge_index
    errors = []
    for coverage in (40, 640):
        design = WalkDesign(ground, 1, length, coverage)
        node, edge = [], []
        for seed in range(12):
            hits = design.hits(Key(seed))
            node.append((hits.node - one.diagonal()) ** 2)
            edge.append((hits.pair(src, dst) - one[src, dst]) ** 2)
        errors.append([float(torch.cat(x).mean().sqrt()) for x in (node, edge)])
    for few, many in zip(*errors):
        assert 3 < few / many < 5.3  # 4 = sqrt(640 / 40)


def test_the_first_step_of_a_walk_is_exact_and_no_count_can_lose_it():
    graph = AWKWARD["double-star"]()
    one_step = WalkDesign(
        Ground.of(Task(graph, SYM, 1, None, Key(0)), inductive=False), 1, 1, 1
    ).hits(Key(0))
    units, prob = walks(graph, 1)
    one = together([(p, sorted(set(u)), 1) for u, p in zip(units, prob)], 10)
    src, dst = graph.edge_index
    torch.testing.assert_close(one_step.node, one.diagonal(), rtol=1e-12, atol=0)
    torch.testing.assert_close(one_step.pair(src, dst), one[src, dst], rtol=1e-12, atol=0)
    for seed in range(10):
        hits = WalkDesign(
            Ground.of(Task(graph, SYM, 1, None, Key(0)), inductive=False), 1, 3, 1
        ).hits(Key(seed))
        assert (hits.pair(src, dst) >= one[src, dst] * (1 - 1e-12)).all()
        plans = SaintWalk(2, 3, coverage=1).prepare(graph, SYM, 2, key=Key(seed))
        assert plans.edge_scale.min() >= 1
        assert plans.edge_scale.max() < 1000


# Monte Carlo -----------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", AWKWARD)
def test_pairs_are_drawn_as_often_as_enumerated(name, sampler):
    """The enumeration above stands for what is drawn: each node, each pair, five standard errors."""
    graph, total = AWKWARD[name](), 120
    n = graph.num_nodes
    plans, truth = PAIRS[sampler].prepare(graph, SYM, 2), pairs(name, sampler)
    count = torch.zeros(n, n, dtype=torch.float64)
    for r in range(total):
        nodes = plans.draw(Key(7, step=r)).node_id
        assert nodes.tolist() == sorted(set(nodes.tolist()))
        count[nodes[:, None], nodes] += 1
    error = (truth * (1 - truth) / total).clamp(min=0).sqrt()
    assert ((count / total - truth).abs() <= 5 * error + 2 / total).all()


@pytest.mark.parametrize("sampler", ["node", "edge", "walk"])
def test_weights_do_not_depend_on_how_many_edges_are_weighed_at_once(sampler, monkeypatch):
    whole = bind(sampler, AWKWARD["communities"]())
    monkeypatch.setattr(saint, "_CHUNK", 7)
    assert torch.equal(bind(sampler, AWKWARD["communities"]()).edge_scale, whole.edge_scale)


def test_walks_are_counted_in_pieces_that_differ(monkeypatch):
    graph = AWKWARD["communities"]()
    units, prob = walks(graph, 2)
    hit = together([(p, sorted(set(u)), 1) for u, p in zip(units, prob)], 12).diagonal()
    monkeypatch.setattr(saint_walk, "_WALKS", 64)
    ground = Ground.of(Task(graph, SYM, 1, None, Key(0)), inductive=False)
    found = WalkDesign(ground, 1, 2, 4000).hits(Key(0)).node
    assert (found / hit - 1).abs().max() < 0.05


def test_coverage_is_how_often_an_average_node_is_met():
    """12 nodes, twice each, 3 a walk: 8 walks, so shares are eighths."""
    ground = Ground.of(Task(AWKWARD["communities"](), SYM, 1, None, Key(0)), inductive=False)
    first = WalkDesign(ground, 1, 1, 2).hits(Key(0)).node
    eighths = 8 * (WalkDesign(ground, 1, 2, 2).hits(Key(0)).node - first)
    torch.testing.assert_close(eighths, eighths.round())
    assert 4 <= eighths.sum() <= 8


def test_rounding_does_not_add_a_step():
    plans = SaintNode(200).prepare(AWKWARD["clique"](), SYM, 2)
    assert float(plans.prob.sum()) < 6
    assert plans.num_batches == 1


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_nodes_are_drawn_as_often_as_said(sampler):
    graph, total = AWKWARD["directed"](), 400
    plans = bind(sampler, graph, MEAN)
    (p,) = plans.target_probability()
    count = torch.zeros(graph.num_nodes)
    for plan in replicate(plans, total, Key(3)):
        count[plan.node_id] += 1
    assert (p > 0).all()
    assert ((count / total - p).abs() <= 5 * (p * (1 - p) / total).sqrt() + 1e-3).all()


# P18: which edges ------------------------------------------------------------------------------


def edge_draws(graph, total):
    """How often the edge sampler draws each undirected edge."""
    design = WalkDesign(Ground.of(Task(graph, SYM, 1, None, Key(0)), inductive=False), total, 1, 1)
    return Counter(tuple(sorted(path)) for path in design.walks(Key(4), total).tolist())


def fits(counts, prob, total):
    """Whether counts are those of the probabilities, at a millionth."""
    statistic = sum((counts[e] - total * p) ** 2 / (total * p) for e, p in prob.items())
    return statistic < chi2.isf(1e-6, len(prob) - 1)


def test_p18_the_edge_between_hubs_is_the_least_likely():
    graph, total = double_star(), 20_000
    degree = [len(n) for n in neighbours(graph)]
    edges = {tuple(sorted(e)) for e in graph.edge_index.t().tolist()}
    right = {e: 1 / degree[e[0]] + 1 / degree[e[1]] for e in edges}
    inverse = {e: degree[e[0]] + degree[e[1]] for e in edges}
    right, inverse = ({e: p / sum(q.values()) for e, p in q.items()} for q in (right, inverse))
    counts = edge_draws(graph, total)
    assert min(counts, key=counts.__getitem__) == (0, 1)
    assert fits(counts, right, total)
    # Negative control: 1 / degree read as degree, which makes the hubs' edge the likeliest.
    assert max(inverse, key=inverse.__getitem__) == (0, 1)
    assert not fits(counts, inverse, total)


def test_a_node_without_edges_is_drawn_as_often_as_a_root():
    counts = edge_draws(AWKWARD["isolated"](), 8000)
    assert 850 < counts[5, 5] < 1150


# Negative controls -----------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["node", "edge"])
def test_the_count_of_the_source_is_found_wrong(sampler):
    """Messages arrive at v, so P(u and v) is taken given v; given u it is another number."""
    graph = build([(0, v) for v in range(1, 6)], 6, [0, 1], undirected=True)
    plans, every = bind(sampler, graph), outcomes(sampler, graph)
    csc = plans.structure.csc
    src, dst = csc.indices.long(), csc.dst.long()
    rows, _ = expect(plans, every, 6)
    assert relative_error(rows, matrix(graph, SYM)) < 1e-5
    loops = src == dst
    wrong = plans.edge_scale * (plans.prob[src] / plans.prob[dst]).float()
    plans.edge_scale = torch.where(loops, 1.0, wrong)
    rows, _ = expect(plans, every, 6)
    assert relative_error(rows, matrix(graph, SYM)) > 0.1


@pytest.mark.parametrize("sampler", ["node", "edge", "walk"])
def test_without_scales_rows_are_biased(sampler):
    graph = tiny()
    plans = bind(sampler, graph, estimator="unit")
    rows, weight = expect(plans, outcomes(sampler, graph), 5)
    assert relative_error(rows, matrix(graph, SYM)) > 0.05
    assert relative_error(weight, loss_weight(graph)) < 0.02


def test_the_weight_of_an_edge_that_was_never_seen_ruins_the_published_estimate():
    graph, sampler = AWKWARD["communities"](), SaintNode(3, estimator="published", coverage=2)
    plans = sampler.prepare(graph, SYM, 2, key=Key(0))
    assert plans.edge_scale.max() == 1e4
    every = sequences([(v,) for v in range(12)], importance(graph, SYM, "node").tolist(), 3)
    rows, _ = expect(plans, every, 12)
    assert relative_error(rows, matrix(graph, SYM)) > 100
    rows, _ = expect(SaintNode(3).prepare(graph, SYM, 2), every, 12)
    assert relative_error(rows, matrix(graph, SYM)) < 1e-5


@pytest.mark.parametrize("sampler", ["node", "edge", "walk"])
def test_counting_subgraphs_comes_to_the_closed_form(sampler):
    graph = AWKWARD["star"]()
    counted = bind(sampler, graph, estimator="published", coverage=800)
    closed = bind(sampler, graph, coverage=20_000)
    torch.testing.assert_close(counted.prob, closed.prob, rtol=0.1, atol=0)
    torch.testing.assert_close(counted.edge_scale, closed.edge_scale, rtol=0.25, atol=0)
    block = counted.plan(Key(0)).blocks[0]
    assert torch.equal(block.scale, counted.edge_scale[block.edge_id.long()])


def test_nodes_that_counting_never_met_count_for_a_tenth():
    plans = SaintNode(2, estimator="published", coverage=1).prepare(AWKWARD["star"](), MEAN, 2)
    times = 0.1 * plans.prob / plans.prob.min()
    assert times.min() == 0.1
    assert plans.prob.min() > 0
    torch.testing.assert_close(times[times > 0.1], times[times > 0.1].round())
    assert 10 < times.sum() < 20


# The rest --------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ["ht", "unit", "published"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_p36_inductive_plans_hold_training_nodes_alone(sampler, estimator):
    graph = AWKWARD["communities"]()
    train = graph.split.train.tolist()
    plans = bind(sampler, graph, estimator=estimator, inductive=True, coverage=20)
    assert plans.target_probability()[0].nonzero().flatten().tolist() == train
    kept = graph.edge_index[:, torch.isin(graph.edge_index, graph.split.train).all(0)]
    allowed = {tuple(e) for e in kept.t().tolist()} | {(v, v) for v in train}
    for plan in replicate(plans, 10):
        assert set(plan.node_id.tolist()) <= set(train)
        csc = plan.blocks[0].adjacency.csc
        ends = torch.stack([plan.node_id[csc.indices.long()], plan.node_id[csc.dst.long()]], 1)
        assert {tuple(e) for e in ends.tolist()} <= allowed


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("estimator", ["ht", "published"])
def test_p33_the_same_plan_on_numba_torch_and_any_number_of_threads(
    sampler, estimator, monkeypatch
):
    options = {"estimator": estimator, "coverage": 30}
    for name in ("directed", "isolated", "edgeless", "loops"):
        graph = AWKWARD[name]()
        plans = bind(sampler, graph, **options)
        keys = list(plans.keys(Key(4), range(2)))
        alone = [plans.plan(key) for key in keys]
        with ThreadPoolExecutor(4) as pool:
            shared = list(pool.map(plans.plan, reversed(keys)))
        assert all(same_plan(a, b) for a, b in zip(alone, reversed(shared)))
        with monkeypatch.context() as patch:
            patch.setattr(backend, "_numba", lambda: False)
            plain = bind(sampler, graph, **options)
            assert all(same_plan(a, plain.plan(key)) for a, key in zip(alone, keys))


@pytest.mark.parametrize(
    ("sampler", "options", "words"),
    [
        ("saint-node", {"budget": 0}, "budget is 0"),
        ("saint-node", {"budget": 1}, "at least 2"),
        ("saint-node", {"importance": "rank"}, "unknown importance"),
        ("saint-node", {"coverage": 0}, "coverage is 0"),
        ("saint-edge", {"budget": -1}, "budget is -1"),
        ("saint-edge", {"estimator": "hajek"}, "unknown estimator"),
        ("saint-walk", {"roots": 0}, "roots is 0"),
        ("saint-walk", {"length": 0}, "length is 0"),
        ("saint-walk", {"inductive": True, "nodes": [2]}, "not a training node"),
    ],
)
def test_bad_options_are_named(sampler, options, words):
    nodes = options.pop("nodes", None)
    nodes = None if nodes is None else torch.tensor(nodes)
    with pytest.raises(InputError, match=words):
        by_name(sampler, **options).prepare(AWKWARD["star"](), SYM, 2, nodes=nodes)
