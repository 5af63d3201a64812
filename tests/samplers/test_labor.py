"""LABOR: the law of neighbour sampling for each target, fewer nodes, unbiased; wrong designs are found out."""

import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from samplers.graphs import AWKWARD, build, hub
from samplers.oracles import aggregate, exact, matrix, mean_estimate, replicate, worst
from samplers.plans import same
from scipy.stats import chi2, kstest, norm

from graphdyn import samplers
from graphdyn.errors import InputError
from graphdyn.graph import Propagation
from graphdyn.kernels import backend
from graphdyn.kernels.labor import words
from graphdyn.keys import Key
from graphdyn.samplers import Labor, Neighbor
from graphdyn.samplers.importance import importance, rows_of

SYM, MEAN = Propagation(), Propagation("mean", self_loops=False)
RECIPES = {
    "sequential": {},
    "poisson": {"design": "poisson"},
    "one": {"rounds": 1},
    "converged": {"rounds": -1},
    "weighted": {"weighted": True},
    "weighted-converged": {"weighted": True, "rounds": -1},
}


def bind(graph, propagation=SYM, hops=1, k=2, nodes=None, **options):
    nodes = torch.arange(graph.num_nodes) if nodes is None else torch.tensor(nodes)
    recipe = Labor((k,) if isinstance(k, int) else k, **{"batch_size": len(nodes)} | options)
    return recipe.prepare(graph, propagation, hops, nodes=nodes)


def overlapping(groups=12, size=10, shared=4, seed=0):
    """Cliques in a ring, neighbours share nodes; zero-mean features."""
    step = size - shared
    n = groups * step
    edges = {
        tuple(sorted(((g * step + i) % n, (g * step + j) % n)))
        for g in range(groups)
        for i in range(size)
        for j in range(i)
    }
    graph = build(sorted(edges), n, list(range(n)), undirected=True)
    x = torch.from_numpy(np.random.default_rng(seed).standard_normal((n, 6)))
    object.__setattr__(graph, "x", x)
    return graph


def skewed(receivers=40, senders=80, seed=1):
    """Receivers with 3 to 20 senders, some of which nearly all have."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, senders + 1)
    edges = [
        (receivers + int(u), v)
        for v in range(receivers)
        for u in rng.choice(senders, int(rng.integers(3, 21)), False, share / share.sum())
    ]
    return build(edges, receivers + senders, list(range(receivers)))


GRAPHS = AWKWARD | {"overlapping": overlapping, "skewed": skewed}


def sources(block):
    return block.node_id[block.adjacency.csc.indices.long()]


def targets(block):
    return block.node_id[block.adjacency.csc.dst.long()]


def neighbours(block):
    """{target: sorted positions of its edges}."""
    out = {v: [] for v in block.node_id[: block.num_dst].tolist()}
    for v, e in zip(targets(block).tolist(), block.edge_id.tolist()):
        out[v].append(e)
    return {v: sorted(edges) for v, edges in out.items()}


# One target: exactly neighbour sampling without replacement.


@pytest.mark.parametrize(
    ("name", "v", "k"), [("star", 0, 2), ("directed", 0, 3), ("parallel", 1, 2), ("clique", 3, 2)]
)
def test_a_target_meets_every_subset_equally_often(name, v, k):
    graph = AWKWARD[name]()
    plans = bind(graph, MEAN, k=k)  # beside targets that share its sources
    csc = plans.structure.csc
    rest = [
        e for e in range(int(csc.indptr[v]), int(csc.indptr[v + 1])) if int(csc.indices[e]) != v
    ]
    own = int(csc.degree[v]) - len(rest)
    count = Counter()
    total = 30 * math.comb(len(rest), k)
    for plan in replicate(plans, total):
        edges = neighbours(plan.blocks[0])[v]
        assert len(edges) == own + k
        count[tuple(e for e in edges if e in rest)] += 1
    assert set(count) == set(combinations(rest, k))
    statistic = sum((count[c] - 30) ** 2 / 30 for c in count)
    assert chi2.sf(statistic, len(count) - 1) > 1e-6


def test_each_target_has_the_variance_of_sampling_without_replacement():
    graph, k, replicates = overlapping(), 4, 800
    plans = bind(graph, MEAN, k=k)
    a, x, truth = matrix(graph, MEAN), graph.x, exact(graph, MEAN, 1)
    degree = (a > 0).sum(1).double()[:, None]
    mean_square = ((a > 0).double() @ x**2) / degree
    spread = (mean_square - truth**2) * degree / (degree - 1)
    expected = (1 / k - 1 / degree) * spread
    square, fourth = torch.zeros_like(x), torch.zeros_like(x)
    for plan in replicate(plans, replicates):
        block = plan.blocks[0]
        error = aggregate(block, x[block.node_id])[: graph.num_nodes]
        error = error[torch.argsort(block.node_id[: block.num_dst])] - truth
        square += error**2 / replicates
        fourth += error**4 / replicates
    error = ((fourth - square**2) / replicates).sqrt()
    assert worst(square, expected, error) <= 5
    # The variance with replacement is larger by d / (d - k) * (d - 1) / d, and is told apart.
    assert worst(square, spread * (degree - 1) / degree / k, error) > 5


def test_draws_from_a_hub_are_uniform():
    graph = hub(100_000)
    plans = bind(graph, MEAN, k=20, nodes=[0])
    drawn = torch.cat([sources(plan.blocks[0]) for plan in replicate(plans, 300)])
    assert len(drawn) == 6000
    cells = torch.bincount((drawn - 1) // 2500, minlength=40).double()
    assert chi2.sf(float(((cells - 150) ** 2 / 150).sum()), 39) > 1e-6


# Aggregates are unbiased.


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", AWKWARD)
def test_two_linear_layers_are_unbiased(name, recipe):
    graph = AWKWARD[name]()
    propagation = MEAN if len(name) % 2 else SYM
    plans = bind(graph, propagation, 2, **RECIPES[recipe])
    mean, error, _ = mean_estimate(plans, graph.x, 80)
    assert worst(mean, exact(graph, propagation, 2), error) <= 5


@pytest.mark.parametrize("recipe", RECIPES)
def test_no_correction_is_found_out(recipe):
    graph = AWKWARD["communities"]()
    plans = bind(graph, MEAN, estimator="unit", **RECIPES[recipe])
    mean, error, _ = mean_estimate(plans, graph.x, 80)
    assert worst(mean, exact(graph, MEAN, 1), error) > 5


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", ["communities", "loops", "weighted", "parallel"])
def test_hajek_keeps_the_sums_of_rows_that_are_not_empty(name, recipe):
    graph = AWKWARD[name]()
    row_sum = matrix(graph, SYM).sum(1)
    for plan in replicate(bind(graph, estimator="hajek", **RECIPES[recipe]), 20):
        block = plan.blocks[0]
        ones = torch.ones(block.num_src, 1)
        filled = block.adjacency.csc.indptr.diff() > 0
        expected = row_sum[block.node_id[: block.num_dst]]
        ours = aggregate(block, ones)[:, 0]
        torch.testing.assert_close(ours[filled], expected[filled], rtol=1e-5, atol=1e-6)


def test_loops_stay_and_do_not_count():
    graph = AWKWARD["loops"]()
    for recipe in RECIPES.values():
        for plan in replicate(bind(graph, SYM, **recipe), 10):
            block = plan.blocks[0]
            loop = sources(block) == targets(block)
            assert set(targets(block)[loop].tolist()) == set(range(7))
            assert block.scale is not None
            assert bool((block.scale[loop] == 1).all())
            if not recipe:  # two of three others, where there are as many
                assert set(block.scale[~loop].tolist()) <= {1.0, 1.5}


@pytest.mark.parametrize("recipe", RECIPES)
def test_all_neighbours_are_the_full_graph(recipe):
    graph = AWKWARD["weighted"]()
    for k in (-1, 100):
        block = bind(graph, k=k, **RECIPES[recipe]).plan(Key(1)).blocks[0]
        assert block.adjacency.csc.num_edges == int((matrix(graph, SYM) != 0).sum())
        order = torch.argsort(block.node_id[: block.num_dst])
        ours = aggregate(block, graph.x[block.node_id])[order]
        torch.testing.assert_close(ours, exact(graph, SYM, 1), rtol=1e-6, atol=1e-6)


# Probabilities: solved for, stated, and true.


def design(graph, propagation, k, rounds, weighted):
    plans = bind(graph, propagation, k=k, design="poisson", rounds=rounds, weighted=weighted)
    dst = torch.arange(graph.num_nodes)
    rows = rows_of(plans.structure, dst, weighted=weighted)
    return plans, rows, importance(plans.structure, dst, rows, k, rounds)


@pytest.mark.parametrize("rounds", [0, 1, 2, -1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["communities", "double-star", "weighted", "skewed"])
def test_probabilities_give_the_variance_of_k_neighbours(name, weighted, rounds):
    graph, k = GRAPHS[name](), 2
    _, rows, found = design(graph, SYM, k, rounds, weighted)
    entries = matrix(graph, SYM).abs()
    for v in range(graph.num_nodes):
        row = slice(int(rows.indptr[v]), int(rows.indptr[v + 1]))
        loop = rows.loop[row]
        p, w = found.prob[row][~loop], torch.cat([entries[v, :v], entries[v, v + 1 :]])
        w = w[w > 0] if weighted else torch.ones(int((w > 0).sum()), dtype=torch.float64)
        assert bool((found.prob[row][loop] == 1).all())
        d = len(w)
        if d <= k:
            assert bool((p == 1).all())
            continue
        right = w.sum() ** 2 * (1 / k - 1 / d) + (w**2).sum()
        assert float((w**2 / p).sum()) == pytest.approx(float(right), rel=1e-6)
        if not rounds and not weighted:
            assert p.tolist() == pytest.approx([k / d] * d, rel=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["communities", "directed", "skewed"])
def test_rounds_of_importance_save_sources(name, weighted):
    graph, k = GRAPHS[name](), 2
    closed = {}
    for rounds in (0, 1, 2, 5, -1):
        plans, rows, found = design(graph, SYM, k, rounds, weighted)
        # A source is drawn if its r_t is below the largest of its probabilities.
        likely = torch.zeros(graph.num_nodes, dtype=torch.float64)
        source = plans.structure.csc.indices[rows.edge.long()].long()
        prob = torch.where(rows.loop, 0.0, found.prob)
        likely.scatter_reduce_(0, source, prob, "amax")
        closed[rounds] = float(likely.sum())
        if rounds:
            assert found.expected[-1] == pytest.approx(closed[rounds], rel=1e-6)
            assert found.expected[0] == pytest.approx(closed[0], rel=1e-6)
        counts = []
        for plan in replicate(plans, 100):
            block = plan.blocks[0]
            counts.append(len(sources(block)[sources(block) != targets(block)].unique()))
        counts = torch.tensor(counts).double()
        error = float(counts.std()) / len(counts) ** 0.5
        assert abs(float(counts.mean()) - closed[rounds]) <= 5 * error + 1e-9
    in_order = [closed[rounds] for rounds in (0, 1, 2, 5, -1)]
    assert all(b <= a * (1 + 1e-9) for a, b in pairwise(in_order[:4]))
    assert closed[-1] <= closed[1] * (1 + 1e-9)
    if name == "skewed":
        assert closed[-1] < 0.99 * closed[1] < 0.9 * closed[0]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("kappa", [1, 3])
def test_stated_probabilities_are_the_true_ones(recipe, kappa):
    graph, replicates = AWKWARD["weighted"](), 700
    plans = bind(graph, k=2, batch_dependency=kappa, **RECIPES[recipe])
    drawn, stated = Counter(), {}
    # Steps far apart: of one window only one.
    for r in range(replicates):
        block = plans.plan(Key(5, step=r * 2 * kappa + r % kappa)).blocks[0]
        for e, p in zip(block.edge_id.tolist(), block.inclusion.tolist()):
            drawn[e] += 1
            stated[e] = p
    assert len(stated) == plans.structure.csc.num_edges
    for e, p in stated.items():
        error = math.sqrt(p * (1 - p) / replicates)
        assert abs(drawn[e] / replicates - p) <= 5 * error + 1e-6


def test_other_designs_by_the_same_weights_have_other_probabilities():
    # A target whose sources have weights 1, 2, 4, 8: GraphBolt's two designs for weighted LABOR.
    weight, k, replicates = np.array([1.0, 2, 4, 8]), 2, 40_000
    edges = [(u, 4) for u in range(4)]
    graph = build(edges, 5, [4], edge_weight=torch.tensor(weight).float())
    plans = bind(graph, Propagation("none", False), k=k, nodes=[4], weighted=True)
    stated = {}
    for plan in replicate(plans, 60):
        stated |= dict(zip(sources(plan.blocks[0]).tolist(), plan.blocks[0].inclusion.tolist()))
    p = np.array([stated[u] for u in range(4)])
    r = Key(1).numpy().random((replicates, 4))
    expected = {"keys r / w": [0.117, 0.251, 0.697, 0.935], "race": [0.177, 0.345, 0.632, 0.846]}
    for name, order in (("keys r / w", r / weight), ("race", -np.log(r) / weight)):
        rank = order.argsort(1).argsort(1)
        share = (rank < k).mean(0)
        assert share == pytest.approx(expected[name], abs=0.01)
        # Under our probabilities neither would be unbiased.
        assert np.abs((share - p) / np.sqrt(share * (1 - share) / replicates)).max() > 5
    ours = (r < p).mean(0)
    assert np.abs((ours - p) / np.sqrt(p * (1 - p) / replicates + 1e-12)).max() <= 5


def test_edges_of_weight_zero_are_never_drawn_and_not_missed():
    edges = [(u, v) for v in range(3) for u in range(3, 12)]
    weight = torch.tensor([0.0 if (i + i // 9) % 3 == 0 else 1.0 + i % 4 for i in range(27)])
    graph = build(edges, 12, [0, 1, 2], edge_weight=weight)
    plain = Propagation("none", False)
    for options in ({}, {"rounds": -1}):
        plans = bind(graph, plain, k=2, nodes=[0, 1, 2], weighted=True, **options)
        for plan in replicate(plans, 50):
            block = plan.blocks[0]
            assert block.adjacency.values is not None
            assert bool((block.adjacency.values > 0).all())
        mean, error, _ = mean_estimate(plans, graph.x, 300)
        assert worst(mean[:3], exact(graph, plain, 1)[:3], error[:3]) <= 5
    # A row of zeros alone is empty, and needs nothing.
    dark = build(edges, 12, [0], edge_weight=torch.zeros(27))
    assert bind(dark, plain, k=2, nodes=[0], weighted=True).plan(Key(1)).num_edges == 0


def test_negative_entries_are_drawn_by_their_size():
    weight = torch.tensor([1.0, -4.0, 2.0, -1.0, 3.0, -2.0])
    graph = build([(u, 6) for u in range(6)], 7, [6], edge_weight=weight)
    plain = Propagation("none", False)
    for rounds in (0, -1):
        plans = bind(graph, plain, k=2, nodes=[6], weighted=True, rounds=rounds)
        mean, error, _ = mean_estimate(plans, graph.x, 300)
        assert worst(mean[6], exact(graph, plain, 1)[6], error[6]) <= 5
        stated = {}
        for plan in replicate(plans, 40):
            stated |= dict(zip(sources(plan.blocks[0]).tolist(), plan.blocks[0].inclusion.tolist()))
        assert stated[1] == max(stated.values())
        assert stated[5] == pytest.approx(stated[2])


# Fewer nodes, correlated targets.


def expected_unique(graph, k, pool):
    """Of neighbour sampling, targets included: independent hypergeometric draws."""
    count = Counter(zip(graph.csc.indices.tolist(), graph.csc.dst.tolist()))
    degree = Counter()
    for (u, v), m in count.items():
        degree[v] += m if u != v else 0
    missed = dict.fromkeys(range(graph.num_nodes), 1.0)
    for (u, v), m in count.items():
        if v in pool and u != v:
            d, take = degree[v], min(k, degree[v])
            missed[u] *= math.comb(d - m, take) / math.comb(d, take)
    return sum(1.0 if u in pool else 1 - missed[u] for u in missed)


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("name", AWKWARD)
def test_no_more_unique_nodes_than_neighbour_sampling(name, k):
    graph = AWKWARD[name]()
    pool = graph.split.train.tolist()
    plans = bind(graph, MEAN, k=k, nodes=pool)
    counts = torch.tensor([plan.num_nodes for plan in replicate(plans, 200)]).double()
    error = float(counts.std()) / len(counts) ** 0.5
    assert float(counts.mean()) <= expected_unique(graph, k, pool) + 5 * error + 1e-9


def test_as_many_unique_nodes_where_nothing_is_shared():
    edges = [(3 + 7 * v + i, v) for v in range(3) for i in range(7)]
    graph = build(edges, 24, [0, 1, 2])
    for k in (1, 3, 7):
        counts = {plan.num_nodes for plan in replicate(bind(graph, k=k, nodes=[0, 1, 2]), 20)}
        assert counts == {3 + 3 * k}
        assert expected_unique(graph, k, [0, 1, 2]) == pytest.approx(3 + 3 * k)


def test_fewer_where_much_is_shared():
    graph, pool = overlapping(), list(range(20))
    counts = [plan.num_nodes for plan in replicate(bind(graph, MEAN, k=3, nodes=pool), 50)]
    assert np.mean(counts) < 0.9 * expected_unique(graph, 3, pool)


def test_the_mean_over_a_batch_varies_more_though_no_target_does():
    graph, k, replicates = overlapping(groups=40, size=20, shared=12, seed=3), 4, 400
    truth = exact(graph, MEAN, 1)
    each, together = {}, {}
    for kind in (Labor, Neighbor):
        recipe = kind((k,), batch_size=120, seeds="uniform")
        plans = recipe.prepare(graph, MEAN, 1)
        errors, means = [], []
        for plan in replicate(plans, replicates):
            block = plan.blocks[0]
            error = aggregate(block, graph.x[block.node_id]) - truth[block.node_id[: block.num_dst]]
            errors.append((error**2).mean())
            means.append((error.mean(0) ** 2).mean())
        each[kind], together[kind] = torch.stack(errors), torch.stack(means)

    def ratio(samples):
        top, bottom = samples[Labor], samples[Neighbor]
        value = float(top.mean() / bottom.mean())
        parts = [float(s.var() / len(s) / s.mean() ** 2) for s in (top, bottom)]
        return value, value * sum(parts) ** 0.5

    value, error = ratio(each)
    assert abs(value - 1) <= 5 * error
    value, error = ratio(together)
    assert value - 5 * error > 3
    assert error < 0.15 * value


# Dependence, by layers and by batches.


def test_layers_share_neighbours_only_if_asked():
    graph = overlapping()
    for rounds in (0, -1):
        plans = {
            shared: bind(graph, MEAN, 3, k=3, rounds=rounds, layer_dependency=shared)
            for shared in (True, False)
        }
        for shared, bound in plans.items():
            layers = [neighbours(block) for block in bound.plan(Key(1)).blocks]
            same = [layers[0][v] == layers[1][v] == layers[2][v] for v in layers[2]]
            assert all(same) if shared else sum(same) < 0.2 * len(same)
    once = bind(graph, MEAN, 2, k=(5, 3), reuse=True).plan(Key(1)).blocks
    assert neighbours(once[0]).items() >= neighbours(once[1]).items()
    # Unequal fan-outs: the smaller choice is a part of the larger.
    blocks = bind(graph, MEAN, 2, k=(5, 3), layer_dependency=True).plan(Key(1)).blocks
    small, large = neighbours(blocks[0]), neighbours(blocks[1])
    assert all(set(small[v]) <= set(large[v]) for v in large)


def normal_scores(plans, step, count=8000):
    """The normal numbers of the sources, read back from the order that their bits stand for."""
    n = plans.structure.num_nodes
    assert n >= count
    edge = torch.arange(count).int()
    uniforms = plans.uniforms(Key(2, step=step).fold("layer", 0))
    word = words(plans.structure.csc, torch.tensor([0, count]), edge, uniforms)
    if uniforms.later is None:
        return norm.ppf(word.double().numpy() / 2.0**63)
    bits = word.numpy().astype(np.uint64) << np.uint64(1)
    top = np.uint64(1 << 63)
    return np.where(bits & top, bits ^ top, ~bits).view(np.float64)


def test_batches_turn_slowly_through_their_window():
    graph = hub(8000)
    kappa = 5
    plans = bind(graph, MEAN, nodes=[0], batch_dependency=kappa)
    scores = [normal_scores(plans, step) for step in range(2 * kappa + 1)]
    error = 1 / 8000**0.5
    for z in scores:
        assert kstest(norm.cdf(z), "uniform").pvalue > 1e-6
    for i in range(kappa):
        for j in range(kappa - i):
            found = np.corrcoef(scores[i], scores[i + j])[0, 1]
            assert abs(found - math.cos(math.pi * j / (2 * kappa))) <= 5 * error
    # From the last step of a window to the first of the next is a turn like any other.
    found = np.corrcoef(scores[kappa - 1], scores[kappa])[0, 1]
    assert abs(found - math.cos(math.pi / (2 * kappa))) <= 5 * error
    # Two windows apart nothing is left.
    assert abs(np.corrcoef(scores[0], scores[2 * kappa])[0, 1]) <= 5 * error


def test_without_dependence_batches_are_independent():
    plans = bind(hub(8000), MEAN, nodes=[0])
    scores = [normal_scores(plans, step) for step in range(3)]
    for i in range(3):
        assert kstest(norm.cdf(scores[i]), "uniform").pvalue > 1e-6
        for j in range(i):
            assert abs(np.corrcoef(scores[i], scores[j])[0, 1]) <= 5 / 8000**0.5


def test_dependent_batches_are_unbiased_and_share_nodes():
    graph = overlapping()
    shares = {}
    for kappa in (1, 50):
        plans = bind(graph, MEAN, k=2, batch_dependency=kappa)
        edges = [set(plan.blocks[0].edge_id.tolist()) for plan in replicate(plans, 20)]
        shares[kappa] = np.mean([len(a & b) / len(a) for a, b in pairwise(edges)])
    assert shares[50] > 2 * shares[1]
    plans = bind(graph, MEAN, k=2, batch_dependency=2)
    far = [Key(9, step=4 * r + r % 2) for r in range(300)]
    total = torch.stack(
        [aggregate(b, graph.x[b.node_id]) for b in (plans.plan(key).blocks[0] for key in far)]
    )
    order = torch.stack(
        [torch.argsort(plans.plan(key).blocks[0].node_id[: graph.num_nodes]) for key in far]
    )
    total = torch.stack([t[o] for t, o in zip(total, order)])
    error = total.std(0) / len(far) ** 0.5
    assert worst(total.mean(0), exact(graph, MEAN, 1), error) <= 5


# The same on every back-end and thread; bad input.


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", GRAPHS)
def test_numba_and_torch_make_the_same_plans(name, recipe, monkeypatch):
    graph = GRAPHS[name]()
    options = {"hops": 2, "k": 2, "batch_dependency": 1 + len(name) % 2} | RECIPES[recipe]
    keys = [Key(s, step=s) for s in range(2)]
    compiled = [bind(graph, **options).plan(key) for key in keys]
    with monkeypatch.context() as patch:
        patch.setattr(backend, "_numba", lambda: False)
        plain = [bind(graph, **options).plan(key) for key in keys]
    assert all(torch.equal(p.node_id, q.node_id) and same(p, q) for p, q in zip(compiled, plain))


@pytest.mark.parametrize("recipe", ["sequential", "converged"])
def test_plans_do_not_depend_on_threads(recipe):
    plans = bind(overlapping(), hops=2, k=3, batch_size=24, **RECIPES[recipe])
    keys = list(plans.keys(Key(6), range(3)))
    alone = [plans.plan(key) for key in keys]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(plans.plan, reversed(keys)))
    assert all(same(a, b) for a, b in zip(alone, reversed(together)))
    assert not same(alone[0], plans.plan(Key(7)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"design": "sequential", "rounds": 1}, "no unbiased estimate; use the design 'poisson'"),
        ({"design": "sequential", "weighted": True}, "'sequential', but weighted"),
        ({"design": "race"}, "unknown design 'race'"),
        ({"rounds": -2}, "rounds is -2; give 0 or more, or -1"),
        ({"batch_dependency": 0}, "batch_dependency is 0; give at least 1"),
        ({"k": 0}, "fan-out 0 is not allowed"),
        ({"k": (2, 2)}, "2 fan-outs were given, but the model has 1"),
        ({"estimator": "mean"}, "unknown estimator 'mean'"),
    ],
)
def test_bad_options_are_one_sentence(options, message):
    with pytest.raises(InputError, match=message):
        bind(AWKWARD["star"](), **options)


def test_labor_goes_by_its_name():
    built = samplers.build("labor", fanouts="15,10", rounds="-1", batch_dependency="8")
    assert built == Labor((15, 10), rounds=-1, batch_dependency=8)
    assert not built.sequential
    assert Labor().sequential
