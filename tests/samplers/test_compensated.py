"""Plans with a halo, against sets and dense matrices."""

import math
from itertools import product

import oracles
import pytest
import torch
from cases import close
from samplers.graphs import AWKWARD
from samplers.oracles import matrix

from graphdyn.errors import InputError
from graphdyn.graph import Propagation
from graphdyn.keys import Key
from graphdyn.samplers import build
from graphdyn.samplers.compensated import Compensated

PROPAGATION = Propagation("sym", self_loops=True)
SUBGRAPH = {
    "cluster": {"parts": 2, "parts_per_batch": 1, "estimator": "unit"},
    "node": {"batch_size": 3, "estimator": "unit"},
    "saint-node": {"budget": 3},
    "saint-edge": {"budget": 2},
    "saint-walk": {"roots": 2, "length": 1},
}
OTHER = {
    "neighbor": {"batch_size": 2, "fanouts": (2, 2)},
    "ladies": {"batch_size": 2, "nodes": (4, 4)},
    "full": {},
    "shadow": {"batch_size": 2},
    "ibmb": {"batch_size": 2},
}
BIG = [name for name in AWKWARD if name not in ("single", "edgeless")]


def plans_of(graph, sampler="node", *, hops=2, propagation=PROPAGATION, **options):
    recipe = Compensated(build(sampler, **SUBGRAPH[sampler]), **options)
    return recipe.prepare(graph, propagation, hops)


def plan_of(graph, step=0, **options):
    return plans_of(graph, **options).plan(Key(3).at(epoch=0, step=step))


def inside_of(block):
    return block.node_id[: block.halo.num_inside].tolist()


@pytest.mark.parametrize("name", [name for name in AWKWARD if name != "single"])
@pytest.mark.parametrize("sampler", ["node", "saint-node"])
def test_the_halo_is_every_neighbour_and_the_block_every_edge_among_both(name, sampler):
    graph = AWKWARD[name]()
    block = plan_of(graph, sampler=sampler).blocks[0]
    a, inside = matrix(graph, PROPAGATION), inside_of(block)
    sends = {u for v in inside for u in torch.nonzero(a[v]).flatten().tolist()}
    hears = {u for v in inside for u in torch.nonzero(a[:, v]).flatten().tolist()}
    ids = block.node_id.tolist()
    assert inside == sorted(inside)
    assert len(ids) == len(set(ids))
    assert set(ids) == set(inside) | sends | hears
    close(block.adjacency.to_dense(torch.float64), a[block.node_id][:, block.node_id])
    full = graph.adjacency(PROPAGATION).csc
    rows, columns = block.adjacency.csc.dst.long(), block.adjacency.csc.indices.long()
    assert torch.equal(full.dst[block.edge_id.long()].long(), block.node_id[rows])
    assert torch.equal(full.indices[block.edge_id.long()].long(), block.node_id[columns])


@pytest.mark.parametrize("name", BIG)
@pytest.mark.parametrize("part", ["weight", "count"])
def test_shares_measure_what_is_there_of_each_row(name, part):
    graph = AWKWARD[name]()
    block = plan_of(graph, score="linear", beta=0.5, part=part).blocks[0]
    a = matrix(graph, PROPAGATION)
    if part == "count":
        a = oracles.adjacency(graph.edge_index, graph.num_nodes, "none")
    outside = block.node_id[block.halo.num_inside :]
    x = a[outside][:, block.node_id].sum(1) / a[outside].sum(1)
    close(block.halo.share.double(), 0.5 * x)


def test_rows_that_get_no_message_lack_none():
    # Under a mean without loops, node 9 of the directed graph only sends.
    graph, mean = AWKWARD["directed"](), Propagation("mean", self_loops=False)
    for step in range(4):
        block = plan_of(graph, step, propagation=mean, score="linear").blocks[0]
        outside = block.node_id[block.halo.num_inside :].tolist()
        if 9 in outside:
            assert block.halo.share[outside.index(9)] == 1
            return
    pytest.fail("node 9 is in no halo")


@pytest.mark.parametrize(
    ("score", "formula"),
    [
        ("const", lambda x: 1.0),
        ("linear", lambda x: x),
        ("concave", lambda x: x * (2 - x)),
        ("convex", lambda x: x * x),
        ("sin", lambda x: max(0.0, math.sin((x - 0.5) * math.pi))),
    ],
)
def test_scores(score, formula):
    least = 1.0
    for name, step in product(("communities", "star"), range(3)):
        graph = AWKWARD[name]()
        x = plan_of(graph, step, score="linear").blocks[0].halo.share
        share = plan_of(graph, step, score=score, beta=0.7).blocks[0].halo.share
        close(share, torch.tensor([0.7 * formula(v) for v in x.tolist()]))
        least = min([least, *x.tolist()])
    assert least < 0.5


@pytest.mark.parametrize("sampler", SUBGRAPH)
def test_weights_are_one_over_the_probability_of_the_batch_and_none_in_the_halo(sampler):
    graph = AWKWARD["communities"]()
    plans = plans_of(graph, sampler)
    plan = plans.plan(Key(3).at(epoch=0, step=1))
    block = plan.blocks[0]
    inside = block.halo.num_inside
    (prob,) = plans.target_probability()
    close(block.halo.weight[:inside], 1 / prob[block.node_id[:inside]], tol=1e-5)
    assert not block.halo.weight[inside:].any()
    close(plan.seed_weight * 5, block.halo.weight[plan.rows])
    assert set(plan.seeds.tolist()) == set(inside_of(block)) & set(graph.split.train.tolist())


def test_an_epoch_has_every_node_once_and_its_weights_are_its_batches():
    graph = AWKWARD["communities"]()
    plans = plans_of(graph, "node")
    plan = [plans.plan(key) for key in plans.keys(Key(1), range(1))]
    every = sorted(v for p in plan for v in inside_of(p.blocks[0]))
    assert every == list(range(graph.num_nodes))
    total = sum(p.blocks[0].halo.weight.sum() for p in plan)
    close(total, torch.tensor(float(graph.num_nodes * len(plan))))


def test_the_halo_moves_with_its_block():
    block = plan_of(AWKWARD["star"]()).blocks[0]
    moved = block.to("meta")
    assert moved.halo.weight.device.type == moved.halo.share.device.type == "meta"
    assert any(t is block.halo.share for t in block.tensors())


@pytest.mark.parametrize("name", OTHER)
def test_other_samplers_are_refused(name):
    sampler = build(name, **OTHER[name])
    with pytest.raises(InputError, match="draws no subgraph"):
        Compensated(sampler).prepare(AWKWARD["communities"](), PROPAGATION, 2)


def test_the_published_estimator_is_refused():
    sampler = build("node", batch_size=3, estimator="published")
    with pytest.raises(InputError, match="published"):
        Compensated(sampler).prepare(AWKWARD["communities"](), PROPAGATION, 2)


@pytest.mark.parametrize(
    "options", [{"beta": -0.1}, {"beta": 1.5}, {"score": "square"}, {"part": "degree"}]
)
def test_options_out_of_range(options):
    ((name, value),) = options.items()
    with pytest.raises(InputError, match=f"{name}.* .?{value}"):
        plans_of(AWKWARD["star"](), **options)
