"""Layer-wise samplers: unbiased, with the probabilities they report; published mistakes are found out."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from samplers.graphs import AWKWARD, build
from samplers.oracles import aggregate, exact, matrix, mean_estimate, replicate, worst

from graphdyn import samplers
from graphdyn.batch import Block
from graphdyn.errors import InputError
from graphdyn.graph import Graph, Propagation, Split
from graphdyn.kernels import backend
from graphdyn.keys import Key
from graphdyn.samplers import FastGCN, Ladies, LayerwiseDesRaj, Pladies, designs
from graphdyn.samplers.designs import Drawn, Wheel
from graphdyn.samplers.layerwise import LayerDependentPlans, empty_rows
from graphdyn.samplers.weight import draw_with_rows

SYM, MEAN = Propagation(), Propagation("mean", self_loops=False)
UNBIASED = {
    "fastgcn": lambda **o: FastGCN(**o),
    "ladies": lambda **o: Ladies(**{"estimator": "ht"} | o),
    "pladies": lambda **o: Pladies(**o),
    "desraj": lambda **o: LayerwiseDesRaj(**o),
}
EVERY = UNBIASED | {
    "published": lambda **o: Ladies(**o),
    "hajek": lambda **o: Pladies(**{"estimator": "hajek"} | o),
    "pladies-all": lambda **o: Pladies(**{"keep_targets": False} | o),
    "desraj-kept": lambda **o: LayerwiseDesRaj(**{"keep_targets": True} | o),
    "unit": lambda **o: Pladies(**{"estimator": "unit"} | o),
    "reused": lambda **o: Pladies(**{"reuse": True} | o),
}


def bind(sampler, graph, propagation=SYM, hops=1, budget=3, **options):
    """Plans with a budget that fits the graph; every training node is a seed unless said otherwise."""
    options = {"batch_size": graph.split.train.numel()} | options
    budget = min(budget, graph.num_nodes)
    return EVERY[sampler](nodes=(budget,), **options).prepare(graph, propagation, hops)


@pytest.mark.parametrize("sampler", UNBIASED)
@pytest.mark.parametrize("name", AWKWARD)
def test_two_linear_layers_are_unbiased(name, sampler):
    graph = AWKWARD[name]()
    propagation = MEAN if len(name) % 2 else SYM
    size = min(2, graph.split.train.numel())
    plans = bind(sampler, graph, propagation, hops=2, batch_size=size)
    mean, error, count = mean_estimate(plans, graph.x, 160)
    seen = count > 1
    assert worst(mean[seen], exact(graph, propagation, 2)[seen], error[seen]) <= 5


@pytest.mark.parametrize("sampler", EVERY)
@pytest.mark.parametrize("name", AWKWARD)
def test_a_budget_for_everybody_is_exact(name, sampler):
    graph = AWKWARD[name]()
    if sampler == "published":  # rows that do not add up to 1 are not kept
        propagation, graph = MEAN, build([(0, 1), (2, 1), (3, 1), (1, 0)], 5, [1, 0])
    else:
        propagation = SYM
    plan = bind(sampler, graph, propagation, hops=2, budget=10**9).plan(Key(2))
    h = graph.x
    for block in plan.blocks:
        h = aggregate(block, h[block.node_id] if h is graph.x else h)
    torch.testing.assert_close(
        h[plan.rows], exact(graph, propagation, 2)[plan.seeds], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("sampler", EVERY)
def test_targets_come_first_and_loops_are_exact(sampler):
    graph = AWKWARD["loops"]()
    plans = bind(sampler, graph, hops=2)
    for plan in replicate(plans, 20):
        assert torch.equal(plan.blocks[-1].node_id[: len(plan.seeds)], plan.seeds)
        for outer, inner in zip(plan.blocks, plan.blocks[1:]):
            assert torch.equal(outer.node_id[: outer.num_dst], inner.node_id)
        for block in plan.blocks:
            src, dst = ends(block)
            loop = src == dst
            assert int(loop.sum()) == block.num_dst  # every node has one, and it is never dropped
            assert bool((block.inclusion[loop] == 1).all())
            if sampler not in ("published", "hajek", "unit"):
                assert bool((block.scale[loop] == 1).all())


def ends(block):
    """(E,) global source and target of each edge."""
    csc = block.adjacency.csc
    return block.node_id[csc.indices.long()], block.node_id[csc.dst.long()]


def columns(graph, propagation, dst, power):
    """(N,) weight of each source by dense algebra: norms of the columns of the targets' rows, loops aside."""
    a = matrix(graph, propagation).clone().fill_diagonal_(0)
    squares = a[dst].square().sum(0)
    return squares.sqrt() if power == 1 else squares


def poisson_oracle(q, n):
    """min(1, c q) by bisection."""
    if int((q > 0).sum()) <= n:
        return (q > 0).double()
    low, high = 0.0, float(n / q[q > 0].min())
    for _ in range(200):
        mid = (low + high) / 2
        low, high = (mid, high) if float((mid * q).clamp(max=1).sum()) < n else (low, mid)
    return (low * q).clamp(max=1)


@pytest.mark.parametrize("importance", ["norm", "norm2"])
@pytest.mark.parametrize("sampler", ["fastgcn", "ladies", "pladies", "pladies-all"])
@pytest.mark.parametrize("name", [n for n in AWKWARD if n != "parallel"])
def test_probabilities_are_those_of_dense_algebra(name, sampler, importance):
    graph = AWKWARD[name]()
    plans = bind(sampler, graph, importance=importance)
    power = 1 if importance == "norm" else 2
    n = min(3, graph.num_nodes)
    for plan in replicate(plans, 5):
        block, dst = plan.blocks[0], plan.seeds
        every = torch.arange(graph.num_nodes)
        q = columns(graph, SYM, every if sampler == "fastgcn" else dst, power)
        if sampler == "pladies":
            q[dst] = 0
        if sampler.startswith("pladies"):
            pi = poisson_oracle(q, n)
            if sampler == "pladies":
                pi[dst] = 1
        elif int((q > 0).sum()) <= n:
            pi = torch.ones_like(q)
        else:
            pi = 1 - (1 - q / q.sum()) ** n
        src, target = ends(block)
        expected = torch.where(src == target, 1.0, pi[src])
        torch.testing.assert_close(block.inclusion.double(), expected, rtol=2e-6, atol=1e-9)


@pytest.mark.parametrize("sampler", ["fastgcn", "ladies", "pladies", "pladies-all", "desraj-kept"])
def test_edges_are_there_as_often_as_reported(sampler):
    graph, rounds = AWKWARD["communities"](), 600
    plans = bind(sampler, graph)
    kept, prob = torch.zeros(2, graph.num_edges + graph.num_nodes, dtype=torch.float64)
    for plan in replicate(plans, rounds):
        block = plan.blocks[0]
        kept[block.edge_id.long()] += 1 / rounds
        prob[block.edge_id.long()] = block.inclusion.double()
    known = ~prob.isnan() & (prob > 0)
    error = (prob * (1 - prob) / rounds).sqrt()
    assert bool(((kept - prob).abs() <= 5 * error + 1e-9)[known].all())
    assert sampler == "desraj-kept" or bool(known.any())


def test_targets_among_the_sources_are_certain():
    graph = AWKWARD["communities"]()
    plans = bind("pladies", graph, budget=1)
    a = matrix(graph, SYM)
    for plan in replicate(plans, 20):
        block = plan.blocks[0]
        src, _ = ends(block)
        between = torch.isin(src, plan.seeds)
        among = a[plan.seeds][:, plan.seeds]
        assert int(between.sum()) == int((among != 0).sum())
        assert bool((block.inclusion[between] == 1).all())
        assert bool((block.scale[between] == 1).all())


def test_pladies_takes_n_nodes_on_average_and_desraj_n_exactly():
    graph, n = crowd(), 10
    blocks = [p.blocks[0] for p in replicate(bind("pladies", graph, MEAN, budget=n), 400)]
    extra = torch.tensor([b.num_src - b.num_dst for b in blocks]).double()
    assert abs(float(extra.mean()) - n) <= 5 * float(extra.std()) / 20
    for plan in replicate(bind("desraj", graph, MEAN, budget=n), 20):
        assert torch.unique(ends(plan.blocks[0])[0]).numel() == n


def test_edges_of_value_zero_are_never_drawn():
    edges = [(1, 0), (2, 0), (3, 0), (4, 0)]
    graph = build(edges, 5, [0], edge_weight=torch.tensor([1.0, 0.0, 2.0, 1.0]))
    for sampler in EVERY:
        for budget in (2, 5):
            plans = bind(sampler, graph, Propagation("none", False), budget=budget)
            for plan in replicate(plans, 20):
                assert 2 not in plan.blocks[0].node_id.tolist()


# What self-normalising does.


@pytest.mark.parametrize("sampler", ["published", "hajek"])
@pytest.mark.parametrize("name", AWKWARD)
def test_normalised_rows_add_up(name, sampler):
    graph = AWKWARD[name]()
    plans = bind(sampler, graph, hops=2, budget=2)
    sums = matrix(graph, SYM).sum(1)
    for plan in replicate(plans, 10):
        for block in plan.blocks:
            row = aggregate(block, torch.ones(block.num_src, 1))[:, 0]
            full = block.adjacency.csc.degree > 0
            expected = sums[block.node_id[: block.num_dst]]
            expected = torch.ones_like(expected) if sampler == "published" else expected
            torch.testing.assert_close(row[full], expected[full], rtol=1e-5, atol=1e-6)
            assert bool((row[~full] == 0).all())


@pytest.mark.parametrize("sampler", EVERY)
def test_empty_rows_are_counted(sampler):
    graph = crowd()
    plans = bind(sampler, graph, MEAN, budget=1)
    a, total = matrix(graph, MEAN), 0
    for plan in replicate(plans, 40):
        block = plan.blocks[0]
        _, dst = ends(block)
        lost = [v for v in plan.seeds.tolist() if bool(a[v].any()) and v not in dst.tolist()]
        assert empty_rows(plans.structure, block) == len(lost)
        total += len(lost)
    assert total > 0
    whole = Block(graph.adjacency(MEAN))
    assert empty_rows(plans.structure, whole) == 0


# What is measured on one graph of 60 nodes with very uneven sources.


def crowd():
    rng = np.random.default_rng(3)
    n, popularity = 60, rng.pareto(1.0, 60) + 0.2
    share = popularity / popularity.sum()
    pairs = {(int(u), v) for v in range(n) for u in rng.choice(n, 12, replace=False, p=share)}
    return Graph.from_edge_index(
        torch.tensor(sorted((u, v) for u, v in pairs if u != v)).t(),
        n,
        x=torch.from_numpy(rng.standard_normal((n, 4))),
        y=torch.arange(n) % 2,
        num_classes=2,
        split=Split(torch.arange(12), torch.tensor([50]), torch.tensor([51])),
    )


def measure(plans, graph, rounds):
    """One layer over many plans: bias in standard errors, relative bias, variance and its standard error."""
    truth = exact(graph, MEAN, 1)[graph.split.train]
    found = []
    for plan in replicate(plans, rounds):
        block = plan.blocks[0]
        found.append(aggregate(block, graph.x[block.node_id])[torch.argsort(plan.seeds)])
    found = torch.stack(found)
    mean, error = found.mean(0), found.std(0) / rounds**0.5
    square = ((found - truth) ** 2).sum((1, 2))
    return {
        "worst": float(((mean - truth).abs() / error.clamp(min=1e-12)).max()),
        "bias": float((mean - truth).norm() / truth.norm()),
        "variance": float(square.mean()),
        "error": float(square.std()) / rounds**0.5,
    }


def passes(found):
    """The one judgement of bias, for us and for the wrong formulas."""
    return found["worst"] <= 5


@pytest.fixture(scope="module")
def measured():
    graph = crowd()
    rows = {
        "fastgcn": ("fastgcn", 400, {}),
        "with replacement": ("ladies", 400, {"importance": "norm"}),
        "desraj": ("desraj", 1600, {}),  # close to the next, hence longer
        "poisson": ("pladies-all", 1600, {}),
        "pladies": ("pladies", 400, {}),
    }
    return {
        name: measure(bind(sampler, graph, MEAN, budget=10, **options), graph, rounds)
        for name, (sampler, rounds, options) in rows.items()
    }


def test_no_design_is_biased_on_the_crowd(measured):
    assert all(passes(found) for found in measured.values()), measured


def test_poisson_varies_less_than_desraj_and_that_less_than_draws_with_replacement(measured):
    for less, more in (
        ("pladies", "poisson"),
        ("poisson", "desraj"),
        ("desraj", "with replacement"),
        ("with replacement", "fastgcn"),
    ):
        a, b = measured[less], measured[more]
        assert b["variance"] - a["variance"] > 3 * (a["error"] ** 2 + b["error"] ** 2) ** 0.5, less


class Wrong(LayerDependentPlans):
    """LADIES with another design; its weights are the published squares."""

    def __init__(self, graph, design, budget=25):
        plans = bind("ladies", graph, MEAN, budget=budget)
        super().__init__(plans.sampler, plans.structure, plans.seeds, 1, design)


def without_replacement_by(scale):
    def design(weight, ids, n, key):
        drawn = designs.without_replacement(weight, ids, n, key)
        return drawn._replace(scale=scale(weight / weight.sum(), n)[drawn.index])

    return design


class Official(Wrong):
    """The released LADIES: without replacement, 1 / p, the batch's own nodes added, rows normalised."""

    def __init__(self, graph):
        super().__init__(graph, without_replacement_by(lambda p, n: 1 / p))
        self.output = graph.split.train

    def choose(self, dst, n, key):
        nodes, weight = self.importance(dst)
        p = weight / weight.sum()
        drawn = self.design(weight, nodes, n, key).index
        extra = torch.nonzero(torch.isin(nodes, self.output)).flatten()
        index = torch.unique(torch.cat([drawn, extra[p[extra] > 0]]))
        return nodes, Drawn(index, 1 / p[index], torch.ones_like(p[index]))

    def weigh(self, draw, dst):
        return draw_with_rows(draw, self.structure, torch.ones(len(dst), dtype=torch.float64))


class RestrictedFastGCN(Wrong):
    """The released FastGCN: drawn among the batch's sources alone, weighed by the shares of the whole matrix."""

    def __init__(self, graph, budget=25):
        super().__init__(graph, None, budget)
        share = columns(graph, MEAN, torch.arange(graph.num_nodes), 2)
        self.share = share / share.sum()

    def choose(self, dst, n, key):
        nodes, weight = self.importance(dst)
        q = torch.where(weight > 0, self.share[nodes], 0.0)
        drawn = Wheel(q).draw(n, key)
        times = drawn.scale * n * (q / q.sum())[drawn.index]
        return nodes, drawn._replace(scale=times / (n * q[drawn.index]))


@pytest.mark.parametrize("mistake", ["official LADIES", "1/(n q)", "1/p", "restricted FastGCN"])
def test_published_mistakes_are_found_out(mistake):
    graph = crowd()
    if mistake == "restricted FastGCN":  # two seeds have few sources: most of q is out of reach
        split = Split(graph.split.train[:2], graph.split.valid, graph.split.test)
        graph = graph.with_split(split)
    plans = {
        "official LADIES": lambda: Official(graph),
        "1/(n q)": lambda: Wrong(graph, without_replacement_by(lambda p, n: 1 / (n * p))),
        "1/p": lambda: Wrong(graph, without_replacement_by(lambda p, n: 1 / p)),
        "restricted FastGCN": lambda: RestrictedFastGCN(graph, 10),
    }[mistake]()
    found = measure(plans, graph, 500)
    assert not passes(found)
    assert found["bias"] > 0.2


def test_the_corrected_designs_pass_where_the_mistakes_do_not():
    graph = crowd()
    for design in (designs.without_replacement, designs.poisson):
        assert passes(measure(Wrong(graph, design), graph, 500))


def test_the_estimator_as_published_is_biased_where_rows_are_empty():
    graph = crowd()
    assert not passes(measure(bind("published", graph, MEAN, budget=10), graph, 500))
    assert not passes(measure(bind("unit", graph, MEAN, budget=10), graph, 500))


# Plans are functions of the key.


def same(first, second):
    pairs = list(zip(first.blocks, second.blocks, strict=True))
    return all(
        torch.equal(
            s.nan_to_num(-1) if s.is_floating_point() else s,
            t.nan_to_num(-1) if t.is_floating_point() else t,
        )
        for a, b in pairs
        for s, t in zip(a.tensors(), b.tensors(), strict=True)
    )


@pytest.mark.parametrize("sampler", EVERY)
def test_numba_and_torch_make_the_same_plans(sampler, monkeypatch):
    graphs = [AWKWARD[n]() for n in ("parallel", "communities", "weighted", "edgeless")] + [crowd()]
    for propagation in (SYM, Propagation("none", False)):
        for graph in graphs:
            plans = bind(sampler, graph, propagation, hops=2)
            keys = [Key(s, step=s) for s in range(4)]
            compiled = [plans.plan(key) for key in keys]
            with monkeypatch.context() as patch:
                patch.setattr(backend, "_numba", lambda: False)
                plain = [bind(sampler, graph, propagation, hops=2).plan(key) for key in keys]
            assert all(same(a, b) for a, b in zip(compiled, plain))


@pytest.mark.parametrize("sampler", EVERY)
def test_plans_do_not_depend_on_threads_or_on_what_came_before(sampler):
    graph = crowd()
    plans = bind(sampler, graph, hops=2, batch_size=4)
    keys = list(plans.keys(Key(6), range(8)))
    alone = [plans.plan(key) for key in keys]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(plans.plan, reversed(keys)))
    assert all(same(a, b) for a, b in zip(alone, reversed(together)))
    assert not same(alone[0], plans.plan(Key(7)))


@pytest.mark.gpu
@pytest.mark.parametrize("sampler", EVERY)
def test_a_gpu_makes_the_same_plans(sampler):
    graph = crowd()
    plans, device = bind(sampler, graph, hops=2), bind(sampler, graph.to("cuda"), hops=2)
    for step in range(4):
        assert same(plans.plan(Key(1, step=step)), device.plan(Key(1, step=step)).to("cpu"))


def test_reused_draws_are_the_same_in_both_layers():
    graph = crowd()
    for plan in replicate(bind("reused", graph, hops=2, budget=5), 5):
        outer, inner = plan.blocks
        size = inner.edge_id.numel()
        assert torch.equal(outer.edge_id[:size], inner.edge_id)
        assert torch.equal(outer.scale[:size], inner.scale)


def test_nodes_that_never_had_an_edge_lose_none():
    graph = AWKWARD["isolated"]()
    plans = bind("pladies", graph, MEAN, budget=8)
    assert empty_rows(plans.structure, plans.plan(Key(0)).blocks[0]) == 0


def test_layers_draw_independently():
    graph = AWKWARD["clique"]()
    plans = bind("pladies-all", graph, hops=2, batch_size=3)
    both = [[set(ends(b)[0].tolist()) for b in plan.blocks] for plan in replicate(plans, 30)]
    assert any(a != b for a, b in both)


# Bad input.


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"nodes": (0,)}, "the budget of 0 nodes is not allowed"),
        ({"nodes": (-1,)}, "the budget of -1 nodes is not allowed"),
        ({"nodes": (13,)}, "the budget is 13 nodes, but the graph has 12; give at most 12"),
        ({"nodes": (3, 3, 3)}, "3 budgets were given, but the model has 2 message-passing layers"),
        ({"nodes": (3,), "importance": "nrom"}, "unknown importance 'nrom'; did you mean norm"),
        ({"nodes": (3,), "estimator": "hajk"}, "unknown estimator 'hajk'; did you mean hajek?"),
    ],
)
@pytest.mark.parametrize("sampler", ["fastgcn", "ladies", "pladies", "layerwise-desraj"])
def test_bad_options_are_refused(sampler, options, sentence):
    recipe = samplers.build(sampler, batch_size=2, **options)
    with pytest.raises(InputError, match=sentence.replace("(", r"\(")):
        recipe.prepare(AWKWARD["communities"](), SYM, 2)


def test_published_is_an_estimator_of_ladies_alone():
    graph = AWKWARD["clique"]()
    assert Ladies().estimator == "published"
    with pytest.raises(InputError, match="unknown estimator 'published'"):
        Pladies(nodes=(2,), batch_size=2, estimator="published").prepare(graph, SYM, 1)


def test_text_makes_the_recipe():
    assert samplers.build("pladies", nodes="64,32", keep_targets="false") == Pladies(
        nodes=(64, 32), keep_targets=False
    )
    assert samplers.build("ladies", nodes=5).nodes == (5,)


def test_inductive_plans_stay_among_training_nodes():
    graph = AWKWARD["communities"]()
    train = set(graph.split.train.tolist())
    for sampler in EVERY:
        for plan in replicate(bind(sampler, graph, hops=2, inductive=True), 10):
            assert set(plan.node_id.tolist()) <= train


def test_a_step_without_seeds_is_a_plan():
    graph = AWKWARD["communities"]()
    for sampler in EVERY:
        plans = bind(sampler, graph, hops=2, batch_size=1, seeds="poisson")
        sizes = [plan.seeds.numel() for plan in replicate(plans, 30)]
        assert 0 in sizes
