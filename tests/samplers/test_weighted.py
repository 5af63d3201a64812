"""Weighted neighbour sampling: unbiased for any positive weights, with the probabilities it reports."""

from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from itertools import permutations

import pytest
import torch
from samplers.graphs import AWKWARD, build, hub
from samplers.oracles import exact, matrix, mean_estimate, replicate, worst

from graphdyn import samplers
from graphdyn.errors import InputError
from graphdyn.graph import Propagation
from graphdyn.kernels import backend
from graphdyn.keys import Key
from graphdyn.samplers import WeightedNeighbor

SYM, MEAN = Propagation(), Propagation("mean", self_loops=False)
DESIGNS = ("poisson", "wor")


def source_weights(graph):
    return 1.0 + torch.arange(graph.num_nodes) % 4


def edge_weights(graph):
    return 0.5 + torch.arange(graph.num_edges) % 5


def named(graph):
    graph.node_attrs["fame"] = source_weights(graph)
    return "fame"


WEIGHTS = {"values": lambda graph: "values", "sources": named, "edges": edge_weights}


def bind(graph, propagation=SYM, hops=1, k=2, kind="edges", **options):
    options = {"batch_size": graph.split.train.numel(), "weights": WEIGHTS[kind](graph)} | options
    return WeightedNeighbor((k,), **options).prepare(graph, propagation, hops)


def ends(block):
    csc = block.adjacency.csc
    return block.node_id[csc.indices.long()], block.node_id[csc.dst.long()]


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("name", AWKWARD)
def test_two_linear_layers_are_unbiased(name, design):
    graph = AWKWARD[name]()
    kind = list(WEIGHTS)[len(name) % 3]
    propagation = MEAN if len(name) % 2 else SYM
    size = min(2, graph.split.train.numel())
    plans = bind(graph, propagation, 2, kind=kind, design=design, batch_size=size)
    mean, error, count = mean_estimate(plans, graph.x, 200)
    seen = count > 1
    assert worst(mean[seen], exact(graph, propagation, 2)[seen], error[seen]) <= 5


def test_no_correction_is_found_out():
    graph = AWKWARD["star"]()
    for design in DESIGNS:
        plans = bind(graph, MEAN, design=design, estimator="unit")
        mean, error, count = mean_estimate(plans, graph.x, 200)
        assert worst(mean[count > 1], exact(graph, MEAN, 1)[count > 1], error[count > 1]) > 5


def inclusion(weight, k):
    """min(1, c w), adding up to k, in exact arithmetic."""
    order = sorted((i for i, w in enumerate(weight) if w), key=lambda i: -weight[i])
    if len(order) <= k:
        return [float(w > 0) for w in weight]
    for certain in range(k):
        c = (k - certain) / sum(Fraction(weight[i]) for i in order[certain:])
        if c * Fraction(weight[order[certain]]) <= 1:
            break
    return [1.0 if i in order[:certain] else float(c * Fraction(w)) for i, w in enumerate(weight)]


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("name", AWKWARD)
def test_probabilities_are_those_of_exact_arithmetic(name, kind, k):
    graph = AWKWARD[name]()
    plans = bind(graph, k=k, kind=kind)
    given = by_pair(graph, plans, kind)
    csc, prob = plans.structure.csc, plans.edge_probability(0)
    for v in range(graph.num_nodes):
        row = range(int(csc.indptr[v]), int(csc.indptr[v + 1]))
        other = [e for e in row if int(csc.indices[e]) != v]
        expected = inclusion([given[int(csc.indices[e]), v][place(row, csc, e)] for e in other], k)
        assert [float(prob[e]) for e in other] == pytest.approx(expected, rel=1e-6)
        assert all(float(prob[e]) == 1 for e in row if e not in other)
    for plan in replicate(plans, 5):
        block = plan.blocks[0]
        torch.testing.assert_close(block.inclusion, prob[block.edge_id.long()], rtol=1e-6, atol=0)


def place(row, csc, edge):
    """Which of several parallel edges."""
    return sum(1 for e in row if e < edge and csc.indices[e] == csc.indices[edge])


def by_pair(graph, plans, kind):
    """{(source, target): weights of the parallel edges}, from the edge list of the graph."""
    src, dst = graph.edge_index.tolist()
    if kind == "values":
        csc, values = plans.structure.csc, plans.structure.values
        src, dst, weight = csc.indices.tolist(), csc.dst.tolist(), values.abs().tolist()
    elif kind == "sources":
        weight = source_weights(graph)[src].tolist()
    else:
        weight = edge_weights(graph).tolist()
    out = {}
    for u, v, w in zip(src, dst, weight):
        out.setdefault((u, v), []).append(w)
    return out


def test_edges_are_there_as_often_as_reported():
    graph, rounds = AWKWARD["communities"](), 800
    plans = bind(graph, kind="sources")
    kept = torch.zeros(plans.structure.csc.num_edges, dtype=torch.float64)
    for plan in replicate(plans, rounds):
        kept[plan.blocks[0].edge_id.long()] += 1 / rounds
    prob = plans.edge_probability(0).double()
    mine = torch.isin(plans.structure.csc.dst, graph.split.train)
    error = (prob * (1 - prob) / rounds).sqrt()
    assert bool(((kept - prob).abs() <= 5 * error + 1e-9)[mine].all())


def fan(*weight):
    """Node 0 receives from 1..d with weights; nobody else receives."""
    edges = [(u, 0) for u in range(1, len(weight) + 1)]
    graph = build(edges, len(weight) + 1, [0])
    return graph, torch.tensor(weight)


def test_without_replacement_draws_in_the_order_of_successive_sampling():
    weight, rounds = (1.0, 2.0, 4.0, 8.0), 2000
    graph, given = fan(*weight)
    plans = bind(graph, MEAN, weights=given, design="wor")
    seen = dict.fromkeys(permutations(range(4), 2), 0)
    for plan in replicate(plans, rounds):
        block = plan.blocks[0]
        seen[tuple(block.edge_id.tolist())] += 1
        assert bool(block.prob.isnan().all())
    for order, count in seen.items():
        first, second = (weight[i] for i in order)
        p = first / 15 * second / (15 - first)
        assert abs(count / rounds - p) <= 5 * (p * (1 - p) / rounds) ** 0.5


def test_scales_without_replacement_are_the_recursion_of_des_raj():
    weight = (1.0, 2.0, 4.0, 8.0, 3.0)
    graph, given = fan(*weight)
    plans = bind(graph, MEAN, k=3, weights=given, design="wor")
    for plan in replicate(plans, 30):
        block, scale, seen = plan.blocks[0], [], Fraction(0)
        for j, e in enumerate(block.edge_id.tolist(), 1):
            p, a = Fraction(int(weight[e]), 18), Fraction(5, j * (5 - j + 1))
            scale = [(1 - a) * s + a for s in scale] + [a * (1 - seen) / p]
            seen += p
        assert block.scale.tolist() == pytest.approx([float(s) for s in scale], rel=1e-6)


@pytest.mark.parametrize("k", [1, 3])
def test_rows_have_k_edges_exactly_or_on_average(k):
    graph = AWKWARD["communities"]()
    rest = graph.csc.degree.clamp(max=k)
    for plan in replicate(bind(graph, k=k, design="wor"), 20):
        block = plan.blocks[0]
        assert torch.equal(block.adjacency.csc.degree, rest[plan.seeds] + 1)
    total = [p.blocks[0].adjacency.csc.degree for p in replicate(bind(graph, k=k), 400)]
    seeds = [p.seeds for p in replicate(bind(graph, k=k), 400)]
    size = torch.stack([d[torch.argsort(s)] for d, s in zip(total, seeds)]).double()
    expected = rest[graph.split.train].double() + 1
    error = (size.std(0) / 20).clamp(min=1e-9)
    assert bool(((size.mean(0) - expected).abs() <= 5 * error).all())


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("k", [-1, 1000])
def test_all_neighbours_are_exact(design, k):
    for name in AWKWARD:
        graph = AWKWARD[name]()
        plan = bind(graph, k=k, design=design).plan(Key(1))
        block = plan.blocks[0]
        assert bool((block.scale == 1).all())
        assert torch.equal(block.adjacency.csc.degree, graph.adjacency(SYM).csc.degree[plan.seeds])


@pytest.mark.parametrize("design", DESIGNS)
def test_loops_are_kept_beside_the_others(design):
    graph = AWKWARD["parallel"]()
    a = graph.adjacency(SYM).csc
    for plan in replicate(bind(graph, k=1, design=design), 20):
        src, dst = ends(plan.blocks[0])
        for v in plan.seeds.tolist():
            loops = int(((a.indices == v) & (a.dst == v)).sum())
            assert int(((src == v) & (dst == v)).sum()) == loops
        assert bool((plan.blocks[0].scale[src == dst] == 1).all())


@pytest.mark.parametrize("inductive", [False, True])
@pytest.mark.parametrize("propagation", [SYM, MEAN])
@pytest.mark.parametrize("name", AWKWARD)
def test_weights_find_their_edges(name, propagation, inductive):
    graph = AWKWARD[name]()
    sampler = WeightedNeighbor((2,), weights=edge_weights(graph), batch_size=1, inductive=inductive)
    structure = sampler.structure(graph, propagation)
    given = by_pair(graph, None, "edges")
    csc = structure.csc
    for u, v, w in zip(csc.indices.tolist(), csc.dst.tolist(), structure.weight.tolist()):
        assert w == (0 if u == v else given[u, v].pop(0))


def test_source_weights_by_name_or_edge_by_edge_are_the_same():
    graph = AWKWARD["communities"]()
    by_name = bind(graph, kind="sources")
    spelt_out = bind(graph, weights=source_weights(graph)[graph.csc.indices.long()])
    assert same(by_name.plan(Key(3)), spelt_out.plan(Key(3)))


@pytest.mark.parametrize("design", DESIGNS)
def test_edges_of_weight_zero_are_never_drawn(design):
    graph, given = fan(1.0, 0.0, 2.0, 0.0, 1.0)
    for k in (2, -1):
        plans = bind(graph, MEAN, k=k, weights=given, design=design, estimator="unit")
        for plan in replicate(plans, 30):
            assert not {1, 3} & set(plan.blocks[0].edge_id.tolist())


def test_edges_of_value_zero_need_no_weight():
    edges = [(1, 0), (2, 0), (3, 0)]
    graph = build(edges, 4, [0], edge_weight=torch.tensor([1.0, 0.0, 2.0]))
    plans = bind(graph, Propagation("none", False), weights=torch.tensor([1.0, 0.0, 1.0]))
    assert 2 not in plans.plan(Key(0)).node_id.tolist()


@pytest.mark.parametrize("estimator", ["ht", "hajek"])
def test_edges_that_would_be_lost_are_refused(estimator):
    graph, given = fan(1.0, 0.0, 2.0)
    sentence = r"edge 1 \(2 -> 0\) has weight 0 and would never be drawn"
    with pytest.raises(InputError, match=sentence):
        bind(graph, MEAN, weights=given, estimator=estimator)


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_weights_that_are_no_weights_are_refused(bad):
    graph, given = fan(1.0, 1.0, bad)
    with pytest.raises(InputError, match=rf"edge 2 \(3 -> 0\) has weight {bad}; weights must"):
        bind(graph, MEAN, weights=given)


def test_other_bad_options_are_refused():
    graph = AWKWARD["directed"]()
    with pytest.raises(InputError, match=r"weights have shape \(3,\); expected \(20,\)"):
        bind(graph, weights=torch.ones(3))
    with pytest.raises(InputError, match="unknown edge weights 'value'; did you mean values"):
        bind(graph, weights="value")
    with pytest.raises(InputError, match="unknown design 'poison'; did you mean poisson"):
        bind(graph, design="poison")
    with pytest.raises(InputError, match="fan-out 0 is not allowed"):
        bind(graph, k=0)
    graph.node_attrs["pair"] = torch.ones(11, 2)
    with pytest.raises(InputError, match=r"source weights have shape \(11, 2\); expected \(11,\)"):
        bind(graph, weights="pair")


def test_a_hub_of_a_hundred_thousand_gets_its_fan_out():
    graph = hub(100_000)
    plans = bind(graph, MEAN, k=10, kind="sources")
    prob = plans.edge_probability(0)[plans.structure.csc.dst == 0].double()
    assert abs(float(prob.sum()) - 10) <= 1e-4
    for design in DESIGNS:
        plan = bind(graph, MEAN, k=10, kind="sources", design=design).plan(Key(0))
        degree = int(plan.blocks[0].adjacency.csc.degree[plan.seeds == 0])
        assert degree == 10 or (design == "poisson" and 0 < degree < 30)


def same(first, second):
    def clean(t):
        return t.nan_to_num(-1) if t.is_floating_point() else t

    return all(
        torch.equal(clean(s), clean(t))
        for a, b in zip(first.blocks, second.blocks, strict=True)
        for s, t in zip(a.tensors(), b.tensors(), strict=True)
    )


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("name", AWKWARD)
def test_numba_and_torch_make_the_same_plans(name, kind, design, monkeypatch):
    graph, keys = AWKWARD[name](), [Key(s, step=s) for s in range(3)]
    for k in (1, 3):
        options = {"hops": 2, "k": k, "kind": kind, "design": design}
        compiled = [bind(graph, **options).plan(key) for key in keys]
        with monkeypatch.context() as patch:
            patch.setattr(backend, "_numba", lambda: False)
            plain = [bind(graph, **options).plan(key) for key in keys]
        assert all(same(a, b) for a, b in zip(compiled, plain))


@pytest.mark.parametrize("design", DESIGNS)
def test_plans_do_not_depend_on_threads(design):
    graph = hub(300)
    plans = bind(graph, hops=2, k=3, design=design, batch_size=4)
    keys = list(plans.keys(Key(6), range(8)))
    alone = [plans.plan(key) for key in keys]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(plans.plan, reversed(keys)))
    assert all(same(a, b) for a, b in zip(alone, reversed(together)))
    assert not same(alone[0], plans.plan(Key(7)))


@pytest.mark.gpu
@pytest.mark.parametrize("design", DESIGNS)
def test_a_gpu_makes_the_same_plans(design):
    graph = hub(300)
    plans = bind(graph, hops=2, k=3, kind="values", design=design)
    device = bind(graph.to("cuda"), hops=2, k=3, kind="values", design=design)
    for step in range(4):
        assert same(plans.plan(Key(1, step=step)), device.plan(Key(1, step=step)).to("cpu"))


def test_hajek_keeps_the_row_sums():
    graph = AWKWARD["communities"]()
    sums = matrix(graph, SYM).sum(1)
    for design in DESIGNS:
        for plan in replicate(bind(graph, design=design, estimator="hajek"), 10):
            csc = plan.blocks[0].adjacency.csc
            row = torch.zeros(csc.num_dst, dtype=torch.float64)
            row.index_add_(0, csc.dst.long(), plan.blocks[0].adjacency.values.double())
            torch.testing.assert_close(row, sums[plan.seeds], rtol=1e-6, atol=0)


def test_text_makes_the_recipe():
    assert samplers.build("neighbor-weighted", fanouts="5,3", design="wor") == WeightedNeighbor(
        (5, 3), design="wor"
    )


@pytest.mark.parametrize("design", DESIGNS)
def test_negative_values_are_drawn_by_their_size(design):
    edges = [(1, 0), (2, 0), (3, 0)]
    graph = build(edges, 4, [0], edge_weight=torch.tensor([-1.0, 2.0, -3.0]))
    plain = Propagation("none", False)
    plans = bind(graph, plain, k=1, kind="values", design=design)
    mean, error, _ = mean_estimate(plans, graph.x, 300)
    assert worst(mean[0], exact(graph, plain, 1)[0], error[0]) <= 5
    assert set(torch.cat([p.node_id for p in replicate(plans, 60)]).tolist()) == {0, 1, 2, 3}


def test_hajek_leaves_a_row_whose_values_cancel():
    graph = build([(1, 0), (2, 0)], 3, [0], edge_weight=torch.tensor([1.0, -1.0]))
    plans = bind(graph, Propagation("none", False), k=-1, kind="values", estimator="hajek")
    assert plans.plan(Key(0)).blocks[0].scale.tolist() == [1, 1]
