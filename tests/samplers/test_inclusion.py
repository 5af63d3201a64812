"""How likely a node is a row of a batch: against enumeration, against counting, and for what it is there."""

from itertools import combinations

import pytest
import torch
from samplers.graphs import AWKWARD, build
from samplers.oracles import node_ids, replicate

from graphdyn.graph import Propagation
from graphdyn.keys import Key
from graphdyn.samplers import Full, Neighbor, Poisson
from graphdyn.samplers.inclusion import source_probability, target_probability, with_node_prob
from graphdyn.samplers.neighbor import NeighborPlans
from graphdyn.samplers.spread import reverse_edges
from graphdyn.samplers.structure import Structure

PLAIN = Propagation("mean", False)
# Largest error beyond counting: a triangle that is always expanded in full is the worst case.
SLACK = {"isolated": 0.26}


def poisson_plans(graph, fanouts, pool, scores, size, **options):
    """Independent seeds with known probabilities, and plans from them."""
    seeds = Poisson(size, "values").bind(torch.tensor(pool), scores=torch.tensor(scores))
    sampler = Neighbor(fanouts, **options)
    return NeighborPlans(sampler, Structure.of(graph, PLAIN), seeds, fanouts), seeds


def enumerated(graph, fanouts, pool, prob, reuse=False):
    """[(N,) per hop]: the probabilities of all sets of nodes, hop by hop, summed for each node."""
    n, start = graph.num_nodes, graph.csc.indptr.tolist()
    into = [graph.csc.indices[start[v] : start[v + 1]].tolist() for v in range(n)]
    states = {frozenset(): 1.0}
    for v, p in zip(pool, prob.tolist()):
        states = _either(states, lambda s, v=v, p=p: [(s | {v}, p), (s, 1 - p)])
    tables = [_marginals(states, n)]
    states = {(frozenset(), s): p for s, p in states.items()}  # who has drawn for good, who is in
    for k in fanouts:
        states = _either(states, lambda s: [((s[1] - s[0], s[1], s[0]), 1)])  # who draws now
        for v in range(n):
            rows = [frozenset(row) for row in combinations(into[v], min(k, len(into[v])))]
            states = _either(
                states,
                lambda s, v=v, rows=rows: (
                    [((s[0], s[1] | row, s[2]), 1 / len(rows)) for row in rows]
                    if v in s[0]
                    else [(s, 1)]
                ),
            )
        states = _either(states, lambda s: [((s[2] | (s[0] if reuse else set()), s[1]), 1)])
        tables.append(_marginals(_either(states, lambda s: [(s[1], 1)]), n))
    return tables


def _either(states, branches):
    out = {}
    for state, p in states.items():
        for after, share in branches(state):
            if p * share:
                out[after] = out.get(after, 0.0) + p * share
    return out


def _marginals(states, n):
    table = torch.zeros(n, dtype=torch.float64)
    for state, p in states.items():
        table[sorted(state)] += p
    return table


def agree(plans, graph, truth):
    """Tables of targets, first layer first, and sources, against those of hops from the seeds."""
    ours = target_probability(plans, graph.num_nodes)
    ours = [source_probability(plans, graph.num_nodes), *ours]
    for table, exact in zip(ours, reversed(truth), strict=True):
        torch.testing.assert_close(table.double(), exact, rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("name", ["star", "path", "double-star", "communities", "directed"])
def test_one_hop_from_independent_seeds_is_exact(name):
    graph, pool = AWKWARD[name](), [0, 4, 5, 7]  # on loops no draw falls: not with these graphs
    plans, seeds = poisson_plans(graph, (2,), pool, [1.0, 2.0, 3.0, 1.5], 2)
    agree(plans, graph, enumerated(graph, (2,), pool, seeds.prob.double()))


@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize(
    ("name", "fanouts"),
    [("path", (1, 1, 2)), ("path", (5, 5, 5)), ("star", (2, 1)), ("double-star", (1, 2, 1))],
)
def test_undirected_trees_are_exact_at_every_depth(name, fanouts, reuse):
    graph, pool = AWKWARD[name](), [0, 2, 7]
    plans, seeds = poisson_plans(graph, fanouts, pool, [1.0, 2.0, 1.5], 1, reuse=reuse)
    agree(plans, graph, enumerated(graph, fanouts, pool, seeds.prob.double(), reuse))


def test_a_directed_tree_is_exact_at_every_depth():
    edges = [(1, 0), (2, 0), (3, 0), (4, 1), (5, 1), (6, 1), (7, 2), (8, 2), (9, 4), (10, 4)]
    graph = build(edges, 11, [0])
    plans, seeds = poisson_plans(graph, (2, 2, 1), [0], [1.0], 1)
    agree(plans, graph, enumerated(graph, (2, 2, 1), [0], seeds.prob.double()))
    assert float(target_probability(plans, 11)[0][4]) == pytest.approx(2 / 3 * 2 / 3)


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("name", AWKWARD)
def test_cycles_and_fixed_batch_sizes_cost_little(name, replace):
    graph, rounds = AWKWARD[name](), 300
    sampler = Neighbor((2, 2), batch_size=min(2, len(graph.split.train)), replace=replace)
    plans = sampler.prepare(graph, Propagation(), 2)
    met = [torch.zeros(graph.num_nodes) for _ in range(3)]
    for plan in replicate(plans, rounds, Key(7)):
        met[0][plan.node_id] += 1
        for count, block in zip(met[1:], plan.blocks, strict=True):
            count[block.node_id[: block.num_dst]] += 1
    tables = [source_probability(plans, graph.num_nodes)]
    tables += target_probability(plans, graph.num_nodes)
    far = SLACK.get(name, 0.1)
    for count, ours, slack in zip(met, tables, (far, far, 1e-6), strict=True):
        error = (ours * (1 - ours) / rounds).sqrt()
        assert bool(((ours - count / rounds).abs() <= 5 * error + slack).all())
        assert bool((ours[count > 0] > 0).all())
        assert float(ours.max()) <= 1


def test_a_reverse_edge_runs_the_other_way():
    for name in AWKWARD:
        csc = AWKWARD[name]().csc
        pairs = list(zip(csc.indices.tolist(), csc.dst.tolist()))
        for e, place in enumerate(reverse_edges(csc).tolist()):
            u, v = pairs[e]
            assert (place >= 0) == ((v, u) in pairs)
            if place >= 0:
                assert pairs[place] == (v, u)


@pytest.mark.parametrize("sampler", [Neighbor((2,), batch_size=2), Full()])
def test_the_rest_is_counted_without_zeros(sampler, monkeypatch):
    graph = AWKWARD["communities"]()
    plans = sampler.prepare(graph, Propagation(), 2)
    monkeypatch.setattr(plans, "edge_probability", lambda hop: None, raising=False)
    rounds = 50
    tables = target_probability(plans, graph.num_nodes, rounds=rounds, key=Key(3))
    sources = source_probability(plans, graph.num_nodes, rounds=rounds, key=Key(3))
    root = Key(3).fold("inclusion")
    met = [torch.zeros(graph.num_nodes) for _ in [*tables, sources]]
    for plan in replicate(plans, rounds, root):
        for count, block in zip(met, plan.blocks):
            count[node_ids(block)[: block.num_dst]] += 1
        met[-1][node_ids(plan.blocks[0])] += 1
    for ours, count in zip([*tables, sources], met, strict=True):
        torch.testing.assert_close(ours, (count + 0.5) / (rounds + 1))
        assert float(ours.min()) > 0


def test_closed_forms_are_taken_where_plans_offer_them():
    graph = AWKWARD["star"]()
    plans = Full().prepare(graph, PLAIN, 2)
    plans.target_probability = lambda: [torch.full((10,), 0.25)]
    (table,) = target_probability(plans, 10)
    assert table.tolist() == [0.25] * 10
    assert table.dtype == torch.float32


@pytest.mark.parametrize("name", AWKWARD)
def test_certain_seeds_reach_all_their_neighbours_for_certain(name):
    graph = AWKWARD[name]()
    sampler = Neighbor((-1,), batch_size=len(graph.split.train))
    plans = sampler.prepare(graph, PLAIN, 3)
    met = torch.zeros(graph.num_nodes)
    met[plans.plan(Key(0)).node_id] = 1
    torch.testing.assert_close(source_probability(plans, graph.num_nodes), met)


@pytest.mark.parametrize("name", AWKWARD)
def test_every_block_carries_the_probability_of_its_targets(name):
    graph = AWKWARD[name]()
    plain = Neighbor((2,), batch_size=1).prepare(graph, PLAIN, 2)
    plans = with_node_prob(plain, graph.num_nodes)
    tables = target_probability(plain, graph.num_nodes)
    assert plans.num_batches == plain.num_batches
    for key in plans.keys(Key(0), range(2)):
        plan, bare = plans.plan(key), plain.plan(key)
        assert torch.equal(plan.seeds, bare.seeds)
        for block, other, table in zip(plan.blocks, bare.blocks, tables, strict=True):
            assert torch.equal(block.node_id, other.node_id)
            assert torch.equal(block.node_prob, table[block.node_id[: block.num_dst]])
            assert float(block.node_prob.min()) > 0


def test_the_whole_graph_needs_no_probability():
    graph = AWKWARD["star"]()
    plan = with_node_prob(Full().prepare(graph, PLAIN, 2), 10).plan(Key(0))
    assert plan.blocks[0].node_prob is None


def test_a_model_without_messages_knows_its_seeds():
    graph = AWKWARD["star"]()
    plans = Neighbor(batch_size=1).prepare(graph, PLAIN, 0)
    expected = torch.zeros(10)
    expected[graph.split.train] = 1 / 3
    (table,) = target_probability(plans, 10)
    torch.testing.assert_close(table, expected)
    torch.testing.assert_close(source_probability(plans, 10), expected)
    assert with_node_prob(plans, 10).plan(Key(0)).blocks[0].node_prob.tolist() == pytest.approx(
        [1 / 3]
    )


def hubs(n=150, m=3):
    """A graph that grows by preferential attachment: a few hubs, many leaves."""
    generator = Key(5).fold("hubs").generator()
    ends, edges = list(range(m)), []
    for v in range(m, n):
        chosen = set()
        while len(chosen) < m:
            chosen.add(ends[int(torch.randint(len(ends), (1,), generator=generator))])
        edges += [(u, v) for u in chosen]
        ends += [*chosen, *([v] * m)]
    return build(edges, n, list(range(n)), undirected=True)


def test_weighted_rows_have_the_mean_of_the_full_graph():
    graph = hubs()
    plans = Neighbor((3,), batch_size=5).prepare(graph, PLAIN, 2)
    plans = with_node_prob(plans, graph.num_nodes)
    quantity = graph.csc.degree.double().log()  # a feature that knows the degree
    truth = quantity.mean()
    weighted, plain = [], []
    for plan in replicate(plans, 300):
        block = plan.blocks[0]  # the hidden layer: seeds and their sampled neighbours
        rows = quantity[block.node_id[: block.num_dst]]
        weight = block.node_prob.double().reciprocal()
        weighted.append((weight * rows).sum() / weight.sum())
        plain.append(rows.mean())
    weighted, plain = torch.stack(weighted), torch.stack(plain)
    bias, bare = (weighted.mean() - truth).abs(), (plain.mean() - truth).abs()
    assert bare > 5 * plain.std() / 300**0.5  # unweighted rows must be found biased
    assert bias < bare / 10, (float(bias), float(bare))
