"""The engine of layered samplers: what every plan holds, whoever asks, in whatever order."""

import pickle
import threading

import cases
import numpy as np
import pytest
import torch
from samplers.graphs import AWKWARD, hub
from samplers.oracles import loss_estimate

from graphdyn import models
from graphdyn.errors import InputError
from graphdyn.graph import Propagation
from graphdyn.kernels import draw as draw_module
from graphdyn.keys import Key
from graphdyn.loss import node_loss
from graphdyn.samplers import Full, Neighbor, Poisson, build
from graphdyn.samplers.neighbor import NeighborPlans
from graphdyn.samplers.seeds import Shuffle
from graphdyn.samplers.structure import Structure, edge_subgraph

SYM = Propagation()
NORMS = ("none", "batch", "weighted-batch", "layer", "graph", "pair")


def same(a, b):
    """Two plans, bit for bit."""
    tensors = [
        [p.rows, p.seeds, p.seed_weight, *(t for x in p.blocks for t in x.tensors())]
        for p in (a, b)
    ]
    return len(tensors[0]) == len(tensors[1]) and all(map(torch.equal, *tensors))


@pytest.mark.parametrize("norm", ["sym", "none"])
@pytest.mark.parametrize("name", AWKWARD)
def test_every_plan_is_a_piece_of_the_graph(name, norm):
    graph, propagation = AWKWARD[name](), Propagation(norm, norm == "sym")
    full = graph.adjacency(propagation)
    for options in (
        {},
        {"replace": True},
        {"reuse": True},
        {"estimator": "hajek"},
        {"estimator": "unit"},
    ):
        plans = Neighbor((2,), batch_size=2 if graph.num_nodes > 1 else 1, **options).prepare(
            graph, propagation, 3
        )
        for key in plans.keys(Key(1), range(2)):
            plan = plans.plan(key)
            assert plan.key == key
            assert plan.blocks[-1].node_id[plan.rows].tolist() == plan.seeds.tolist()
            assert plan.blocks[-1].num_dst == len(plan.seeds)
            for block in plan.blocks:
                _is_a_piece(block, full)
            for outer, inner in zip(plan.blocks, plan.blocks[1:]):
                assert torch.equal(outer.node_id[: outer.num_dst], inner.node_id)


def _is_a_piece(block, full):
    csc, ids, edge = block.adjacency.csc, block.node_id, block.edge_id.long()
    row = torch.repeat_interleave(torch.arange(csc.num_dst), csc.indptr.diff().long())
    assert len(set(ids.tolist())) == len(ids)
    assert torch.equal(full.csc.dst[edge].long(), ids[row])
    assert torch.equal(full.csc.indices[edge].long(), ids[csc.indices.long()])
    assert set(csc.indices.tolist()) | set(range(csc.num_dst)) == set(range(csc.num_src))
    if full.values is None:
        assert block.adjacency.values is block.scale
    else:
        expected = full.values[edge] * (1 if block.scale is None else block.scale)
        assert torch.equal(block.adjacency.values, expected)


@pytest.mark.parametrize("name", AWKWARD)
def test_a_plan_is_the_same_on_numba_and_torch(name, monkeypatch):
    for replace in (False, True):
        plans = Neighbor((3, 2), batch_size=1, replace=replace).prepare(AWKWARD[name](), SYM, 2)
        keys = list(plans.keys(Key(2), range(2)))
        ours = [plans.plan(key) for key in keys]
        with monkeypatch.context() as patch:
            patch.setattr(draw_module, "compiled", lambda device: False)
            assert all(same(plan, plans.plan(plan.key)) for plan in ours)


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("seeds", ["shuffle", "uniform", "poisson", "persistent"])
def test_threads_and_order_change_nothing(threads, seeds):
    graph, tau = AWKWARD["communities"](), 4.0 if seeds == "persistent" else None
    sampler = Neighbor((2, 3), batch_size=2, seeds=seeds, tau=tau)
    keys = list(sampler.prepare(graph, SYM, 2).keys(Key(3), range(12)))
    truth = [sampler.prepare(graph, SYM, 2).plan(key) for key in keys]
    plans, found = sampler.prepare(graph, SYM, 2), {}
    order = np.random.default_rng(threads).permutation(len(keys)).tolist()

    def work(part):
        for i in part:
            found[i] = plans.plan(keys[i])

    running = [threading.Thread(target=work, args=(order[i::threads],)) for i in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert all(same(truth[i], found[i]) for i in range(len(keys)))


def test_another_key_is_another_plan_and_paths_count():
    plans = Neighbor((2,), batch_size=5).prepare(AWKWARD["communities"](), SYM, 2)
    a = plans.plan(Key(0))
    assert not same(a, plans.plan(Key(1)))
    assert not same(a, plans.plan(Key(0, step=1)))
    assert not same(a, plans.plan(Key(0).fold("rank", 1)))


def test_layers_are_drawn_independently_unless_reused():
    graph, nodes = AWKWARD["clique"](), torch.tensor([0])
    for reuse in (False, True):
        plans = Neighbor((1,), batch_size=1, reuse=reuse).prepare(graph, SYM, 2, nodes=nodes)
        agree = 0
        for r in range(200):
            outer, inner = plans.plan(Key(0, step=r)).blocks
            agree += outer.edge_id[:2].tolist() == inner.edge_id[:2].tolist()
        # One of five neighbours each: independent draws agree in a fifth of all steps.
        assert agree == 200 if reuse else abs(agree / 200 - 0.2) < 5 * (0.16 / 200) ** 0.5


def test_recipes_are_values():
    sampler = build("neighbor", fanouts="3,2", batch_size="2", seeds="persistent", tau="4")
    assert sampler == Neighbor((3, 2), batch_size=2, seeds="persistent", tau=4.0)
    copy = pickle.loads(pickle.dumps(sampler))
    assert copy == sampler
    assert hash(copy) == hash(sampler)
    graph = AWKWARD["directed"]()
    a, b = (s.prepare(graph, SYM, 2).plan(Key(4, step=7)) for s in (sampler, copy))
    assert same(a, b)


def test_keys_run_through_epochs_and_resume_in_the_middle():
    plans = Neighbor(batch_size=2).prepare(AWKWARD["directed"](), SYM, 1)
    assert plans.num_batches == 3
    every = [(k.epoch, k.step) for k in plans.keys(Key(0), range(1, 3))]
    assert every == [(1, 3), (1, 4), (1, 5), (2, 6), (2, 7), (2, 8)]
    rest = [(k.epoch, k.step) for k in plans.keys(Key(0), range(1, 3), first=5)]
    assert rest == every[2:]


@pytest.mark.parametrize("name", AWKWARD)
def test_a_model_without_messages_gets_one_block_without_edges(name):
    graph = AWKWARD[name]()
    plans = Neighbor(batch_size=1).prepare(graph, Propagation("none", False), 0)
    plan = plans.plan(Key(0))
    (block,) = plan.blocks
    assert (block.num_src, block.num_dst, plan.num_edges) == (1, 1, 0)
    model = models.build("mlp", 3, 3, layers=2, hidden=4, norm="none").double().eval()
    logits = model(plan.batch(graph.x[plan.node_id], graph.y[plan.seeds])).logits
    torch.testing.assert_close(logits, model(cases.whole(graph, model)).logits[plan.seeds])


def empty_plan(graph, model):
    """The first plan of Poisson seeds that has none."""
    plans = Neighbor((2,), batch_size=1, seeds="poisson").prepare(
        graph, model.propagation, model.num_hops
    )
    return next(p for p in map(plans.plan, plans.keys(Key(0), range(100))) if not len(p.seeds))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", cases.MODELS)
def test_a_step_without_seeds_has_loss_zero_and_gradient_zero(name, norm):
    graph = cases.tiny()
    model = cases.small_model(name, norm=norm)
    model.train()
    plan = empty_plan(graph, model)
    assert plan.num_nodes == plan.num_edges == 0
    batch = plan.batch(graph.x[plan.node_id], graph.y[plan.seeds])
    loss = node_loss(model(batch).logits, batch)
    assert float(loss.detach()) == 0
    loss.backward()
    for p in model.parameters():
        assert p.grad is None or float(p.grad.abs().sum()) == 0
    assert all(bool(torch.isfinite(b).all()) for b in model.buffers())


def test_seeds_without_neighbours_keep_themselves_alone():
    graph = AWKWARD["isolated"]()
    alone = torch.tensor([5, 7])
    for loops in (False, True):
        propagation = Propagation("sym" if loops else "mean", loops)
        plan = Neighbor((3,), batch_size=2).prepare(graph, propagation, 2, nodes=alone).plan(Key(0))
        assert sorted(plan.node_id.tolist()) == [5, 7]
        assert plan.num_edges == (4 if loops else 0)


@pytest.mark.parametrize("seeds", ["shuffle", "poisson"])
@pytest.mark.parametrize("name", ["star", "isolated", "communities"])
def test_the_loss_is_an_unbiased_mean(name, seeds):
    graph = AWKWARD[name]()
    plans = Neighbor((2,), batch_size=2, seeds=seeds).prepare(graph, SYM, 1)
    phi = torch.arange(graph.num_nodes, dtype=torch.float64) ** 2
    mean, error = loss_estimate(plans, phi, 600)
    assert abs(mean - float(phi[graph.split.train].mean())) <= 5 * error


@pytest.mark.parametrize("name", ["star", "clique", "communities", "directed", "weighted"])
def test_inductive_plans_hold_training_nodes_and_edges_alone(name):
    graph = AWKWARD[name]()
    train = set(graph.split.train.tolist())
    plans = Neighbor((-1,), batch_size=2, inductive=True).prepare(graph, SYM, 2)
    reference = edge_subgraph(
        graph,
        torch.tensor([u in train and v in train for u, v in graph.edge_index.t().tolist()]),
    )
    full = reference.adjacency(SYM)
    for key in plans.keys(Key(0), range(3)):
        plan = plans.plan(key)
        assert set(plan.seeds.tolist()) <= train
        for block in plan.blocks:
            assert set(block.node_id.tolist()) <= train
            _is_a_piece(block, full)
    block = Full(inductive=True).prepare(graph, SYM, 2).plan(Key(0)).blocks[0]
    assert (
        set(
            block.adjacency.csc.indices[
                block.adjacency.csc.dst != block.adjacency.csc.indices
            ].tolist()
        )
        <= train
    )


def test_inductive_sampling_needs_a_split():
    graph = cases.Graph.from_edge_index(torch.tensor([[0], [1]]), 2)
    with pytest.raises(InputError, match="no split"):
        Neighbor(batch_size=1, inductive=True).prepare(graph, SYM, 1, nodes=torch.tensor([0]))


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([0, 3, 0], "seed nodes repeat"),
        ([0, 10], "node 10 is outside 0..9"),
        ([-1, 2], "node -1 is outside 0..9"),
        ([], "no training nodes"),
    ],
)
def test_bad_seed_nodes_are_named(nodes, words):
    with pytest.raises(InputError, match=words):
        nodes = torch.tensor(nodes, dtype=torch.int64)
        Neighbor(batch_size=1).prepare(AWKWARD["star"](), SYM, 1, nodes=nodes)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"estimator": "hayek"}, "did you mean hajek"),
        ({"batch_size": 4}, "4, but there are 3 training nodes"),
        ({"batch_size": 0}, "at least 1"),
        ({"seeds": "parts"}, "unknown seed policy"),
        ({"seeds": "persistent"}, "tau is missing"),
    ],
)
def test_bad_options_are_named(options, words):
    with pytest.raises(InputError, match=words):
        Neighbor(**({"batch_size": 1} | options)).prepare(AWKWARD["star"](), SYM, 1)


def test_a_bound_policy_of_ones_own_serves_plans():
    graph = AWKWARD["star"]()
    scores = torch.tensor([5.0, 1.0, 1.0])
    seeds = Poisson(1, "values").bind(graph.split.train, scores=scores)
    plans = NeighborPlans(Neighbor(), Structure.of(graph, SYM), seeds, (2,))
    met = torch.zeros(10)
    for r in range(500):
        met[plans.plan(Key(0, step=r)).seeds] += 1
    assert met[0] > 3 * met[1]
    assert plans.num_batches == Shuffle(1).bind(graph.split.train).num_batches


def test_a_hub_of_a_hundred_thousand_costs_its_fan_out_alone():
    graph = hub(100_000)
    plan = (
        Neighbor((10, 5), batch_size=1)
        .prepare(graph, Propagation("mean", False), 2, nodes=torch.tensor([0]))
        .plan(Key(0))
    )
    assert plan.blocks[1].adjacency.csc.degree.tolist() == [10]
    assert plan.num_nodes <= 1 + 10 + 1 + 11 * 5
    torch.testing.assert_close(plan.blocks[1].scale, torch.full((10,), 10_000.0))


@pytest.mark.parametrize("name", AWKWARD)
def test_one_value_a_row_is_noticed_and_changes_nothing(name):
    graph = AWKWARD[name]()
    plans = build("neighbor", batch_size=1, fanouts=(2, 2)).prepare(
        graph, Propagation("mean", False), 2
    )
    structure = plans.structure
    even = graph.edge_weight is None and graph.num_edges > 0
    assert (structure.row_value is not None) == even
    for key in plans.keys(Key(0), range(1)):
        for block in plans.plan(key).blocks:
            exact = structure.values[block.edge_id.long()] * block.scale
            assert torch.equal(block.adjacency.values, exact)
