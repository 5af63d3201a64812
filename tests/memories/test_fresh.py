"""The selective cache: exact where its rows are, gone where its policy says so, and nothing else changed."""

import copy
from dataclasses import replace
from itertools import product

import pytest
import torch
from cases import MODELS, ORDERS, SKIPS, close, small_model, tiny, whole

from graphdyn.errors import InputError
from graphdyn.evaluation import evaluate
from graphdyn.keys import Key
from graphdyn.loader import gather
from graphdyn.loss import node_loss
from graphdyn.memories import Fresh, Setting, build
from graphdyn.memories.fresh import smallest
from graphdyn.memories.passes import exact_outputs
from graphdyn.models.output import Output
from graphdyn.samplers import Cluster, Neighbor
from graphdyn.samplers.inclusion import with_node_prob
from graphdyn.step import update

DEEP = {name: ({} if name in ("sgc", "appnp") else {"layers": 3}) for name in MODELS}
TRUNKS = [  # GCNII is its own initial residual
    (name, skip, order)
    for name, skip, order in product(MODELS, SKIPS, ORDERS)
    if name != "mlp" and (name, skip) != ("gcnii", "initial")
]


def bound(model, graph, fanouts=(2,), batch_size=3, **options):
    """Plans, a cache and the plans of the sampler alone."""
    recipe, sampler = Fresh(**options), Neighbor(fanouts, batch_size=batch_size)
    args = (graph, model.propagation, model.num_hops)
    plans = recipe.wrap(sampler).prepare(*args)
    return plans, recipe.bind(Setting(model, graph, plans)), sampler.prepare(*args)


def batch_of(plans, graph, step):
    key = Key(3).at(epoch=step // plans.num_batches, step=step)
    return gather(plans.plan(key), graph.x, graph.y)


def run(model, graph, plans, memory, steps, optimizer):
    out = []
    for step in steps:
        batch = batch_of(plans, graph, step)
        out.append(batch)
        update(model, batch, optimizer, memory=memory)
    return out


def adam(model):
    return torch.optim.Adam(model.parameters(), lr=0.05)


def same(a, b):
    mine, yours = list(a.tensors()), list(b.tensors())
    return len(mine) == len(yours) and all(torch.equal(s, t) for s, t in zip(mine, yours))


def fill(memory, outputs, nodes, step=0):
    for hop in memory.tables.rows:
        memory.tables.push(hop, nodes, outputs[hop][nodes], step)


@pytest.mark.parametrize(("name", "skip", "order"), TRUNKS)
def test_exact_rows_give_the_logits_of_the_full_graph(name, skip, order):
    graph = tiny(dtype=torch.float32)
    model = small_model(name, **DEEP[name], skip=skip, order=order, norm="layer").float()
    plans, memory, _ = bound(model, graph, fanouts=(-1,))
    with torch.no_grad():
        exact, full = exact_outputs(model, graph), model(whole(graph, model)).logits
        fill(memory, exact, torch.tensor([0, 1, 4, 5, 8]), step=2)
        remembered = 0
        for step in (3, 4, 5):
            batch = memory.pull(batch_of(plans, graph, step))
            remembered += sum(b.border.num_nodes for b in batch.blocks if b.border)
            close(model(batch).logits[batch.rows], full[batch.seeds], 1e-4)
    assert remembered


def test_states_are_dropped_by_the_masks_of_fresh_rows():
    """Remembered or computed, a node drops the same entries: logits agree where rows are exact."""
    graph = tiny()
    model = small_model("gcn", layers=2, dropout=0.5).train()
    plans, memory, alone = bound(model, graph, fanouts=(-1,))
    with torch.no_grad():
        fill(memory, exact_outputs(model, graph), torch.arange(12))
        batch, plain = memory.pull(batch_of(plans, graph, 4)), batch_of(alone, graph, 4)
        assert batch.x.shape[0] < plain.x.shape[0]
        close(model(batch).logits, model(plain).logits)


@pytest.mark.parametrize("options", [{"p_grad": 0.0}, {"t_stale": 0}])
def test_a_cache_that_holds_nothing_changes_nothing(options):
    graph, weights = tiny(), []
    for cached in (True, False):
        model = small_model("gcn", dropout=0.3, norm="batch", skip="identity")
        plans, memory, alone = bound(model, graph, **options)
        used = plans if cached else alone
        optimizer, batches = adam(model), []
        for step in range(8):
            batch = batch_of(used, graph, step)
            batches.append(batch)
            update(model, batch, optimizer, **({"memory": memory} if cached else {}))
        weights.append((batches, model.state_dict()))
    (mine, a), (yours, b) = weights
    assert all(same(p, q) for p, q in zip(mine, yours, strict=True))
    assert all(torch.equal(a[n], b[n]) for n in a)


def given(model, graph, gradients, **options):
    """A cache that saw one step whose first hop wrote rows with gradients of these norms."""
    plans, memory, _ = bound(model, graph, **options)
    batch = batch_of(plans, graph, 10)
    count = batch.block(0).num_dst
    rows = torch.arange(4.0 * count, dtype=torch.float64).view(count, 4).requires_grad_()
    rows.grad = torch.zeros_like(rows)
    rows.grad[:, 1] = torch.tensor(gradients, dtype=torch.float64)[:count]
    memory.push(batch, Output(rows, (rows, rows)))
    return memory, batch.block(0).node_id[:count], rows.detach()


def test_rows_of_small_gradients_are_admitted_and_others_evicted():
    graph, model = tiny(), small_model("gcn", layers=2)
    options = {"p_grad": 0.5, "t_stale": 5, "batch_size": 6}
    norms = [3.0, -0.5, 2.0, 0.0, 9.0, -1.0, 4.0, 0.7, 6.0, 5.0, 8.0, 7.0]
    memory, ids, rows = given(model, graph, norms, **options)
    count = len(ids)
    order = sorted(range(count), key=lambda i: abs(norms[i]))[: count // 2]
    expected = torch.zeros(count, dtype=torch.bool)
    expected[order] = True
    assert 0 < count // 2 < count
    assert torch.equal(memory.known(1, ids, 11), expected)
    assert torch.equal(memory.tables.pull(0, ids[expected]), rows[expected].float())
    # What was there and matters now is evicted; what matters no longer is written over.
    memory.tables.push(0, ids, torch.full((count, 4), -1.0), 9)
    assert bool(memory.known(1, ids, 10).all())
    batch_rows = rows.clone().requires_grad_()
    batch_rows.grad = torch.zeros_like(batch_rows)
    batch_rows.grad[:, 0] = torch.tensor(norms, dtype=torch.float64)[:count]
    plans, other, _ = bound(model, graph, **options)
    memory.push(batch_of(plans, graph, 10), Output(batch_rows, (batch_rows, batch_rows)))
    assert torch.equal(memory.known(1, ids, 11), expected)
    assert torch.equal(memory.tables.pull(0, ids[expected]), rows[expected].float())
    assert not bool(other.known(1, ids, 11).any())


def test_rows_serve_until_they_are_too_old():
    graph, model = tiny(), small_model("gcn", layers=2)
    memory, ids, _ = given(model, graph, [1.0] * 12, p_grad=1.0, t_stale=5)
    for step, found in ((11, True), (15, True), (16, False), (200, False)):
        assert bool(memory.known(1, ids, step).all()) == found
        assert bool(memory.known(1, ids, step).any()) == found


def test_shares_are_counted_down_and_ties_go_to_the_first():
    norm = torch.tensor([2.0, 1.0, 1.0, 1.0, 0.5])
    assert smallest(norm, 0.5).tolist() == [False, True, False, False, True]
    assert smallest(norm, 0.79).tolist() == [False, True, True, False, True]
    assert not smallest(norm, 0.0).any()
    assert smallest(norm, 1.0).all()
    assert smallest(norm[:0], 0.5).numel() == 0


def test_the_norms_are_those_of_finite_differences():
    """Which rows are admitted follows from how the loss answers when the output of a hop is shifted."""
    graph, model = tiny(), small_model("gcn", layers=3, activation="elu")
    plans, memory, _ = bound(model, graph, p_grad=0.5, batch_size=4)
    batch = batch_of(plans, graph, 0)
    update(model, batch, torch.optim.SGD(model.parameters(), lr=0.0), memory=memory)
    for hop in (0, 1):
        ids = batch.block(hop).node_id[: batch.block(hop).num_dst]
        slope = torch.stack([_slope(model, batch, hop, row) for row in range(len(ids))])
        order = torch.argsort(slope.norm(dim=1))
        calm = ids[order[: len(ids) // 2]]
        assert set(calm.tolist()) == set(ids[memory.known(hop + 1, ids, 1)].tolist())
        loud = ids[order.flip(0)[: len(ids) // 2]]
        assert set(loud.tolist()) != set(calm.tolist())


def _slope(model, batch, hop, row):
    def loss(column, step):
        block = batch.block(hop)
        offset = torch.zeros(block.num_dst, 4, dtype=torch.float64)
        offset[row, column] = step
        blocks = list(batch.blocks)
        blocks[hop] = replace(block, offset=offset)
        shifted = replace(batch, blocks=tuple(blocks))
        with torch.no_grad():
            return node_loss(model(shifted).logits, shifted)

    return torch.stack([(loss(c, 1e-5) - loss(c, -1e-5)) / 2e-5 for c in range(4)])


def test_identity_skips_need_every_row_below():
    graph, model = tiny(), small_model("gcn", layers=3, skip="identity")
    plans, memory, _ = bound(model, graph)
    assert model.recalls(2) == (0, 1)
    ids = torch.arange(12)
    memory.tables.push(1, ids[:6], torch.zeros(6, 4), 0)
    memory.tables.push(0, ids[3:], torch.zeros(9, 4), 0)
    assert memory.known(2, ids, 1).tolist() == [3 <= v < 6 for v in range(12)]
    assert memory.known(1, ids, 1).tolist() == [v >= 3 for v in range(12)]
    assert plans.reads_features
    assert not bound(small_model("gcn", layers=3), graph)[0].reads_features


def test_a_run_is_a_function_of_its_seed_and_goes_on_where_it_stopped():
    def start():
        graph = tiny()
        model = small_model("gcn", layers=3, dropout=0.3)
        plans, memory, _ = bound(model, graph, p_grad=0.7, t_stale=4)
        return model, graph, plans, memory

    model, graph, plans, memory = start()
    optimizer = adam(model)
    run(model, graph, plans, memory, range(5), optimizer)
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict(), memory.state()))
    rest = run(model, graph, plans, memory, range(5, 10), optimizer)
    other, graph, plans, resumed = start()
    again = adam(other)
    other.load_state_dict(saved[0])
    again.load_state_dict(saved[1])
    resumed.restore(saved[2])
    assert all(
        same(a, b) for a, b in zip(rest, run(other, graph, plans, resumed, range(5, 10), again))
    )
    assert any(b.border is not None for batch in rest for b in batch.blocks)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])
    assert memory.report() == resumed.report()
    whole_run, graph, plans, third = start()
    run(whole_run, graph, plans, third, range(10), adam(whole_run))
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), whole_run.state_dict().values())
    )


def test_evaluation_leaves_the_cache_alone():
    graph = tiny(dtype=torch.float32)
    model = small_model("gcn", layers=3, norm="batch").float()
    plans, memory, _ = bound(model, graph, t_stale=50)
    run(model, graph, plans, memory, range(4), adam(model))
    before = {n: t.clone() for n, t in memory.state().items()}
    planned = plans.plan(Key(3, step=4))
    for statistics in ("running", "population"):
        evaluate(model, graph, statistics=statistics)
    assert all(torch.equal(t, before[n]) for n, t in memory.state().items())
    assert all(
        torch.equal(a, b)
        for p, q in [(planned, plans.plan(Key(3, step=4)))]
        for x, y in zip(p.blocks, q.blocks)
        for a, b in zip(x.tensors(), y.tensors())
    )


def test_the_report_counts_what_was_asked_and_found():
    graph, model = tiny(), small_model("gcn", layers=2)
    plans, memory, _ = bound(model, graph, fanouts=(-1,))
    assert memory.report() == {}
    fill(memory, exact_outputs(model, graph), torch.tensor([1, 4, 5]), step=2)
    asked = found = 0
    for step in (3, 6):
        batch = memory.pull(batch_of(plans, graph, step))
        last = batch.blocks[1]
        asked += last.num_src - last.num_dst
        found += last.num_src - last.num_fresh
    report = memory.report()
    assert 0 < found < asked
    assert report["cache_hits"] == pytest.approx(found / asked)
    assert report["cache_rows"] == found / 2
    assert 1 <= report["cache_age"] <= 4
    assert memory.report() == {}


def test_declared_bytes_are_held_and_other_plans_may_stand_around_the_cache():
    graph = tiny(dtype=torch.float32)
    model = small_model("gcn", layers=3, norm="weighted-batch").float()
    recipe = Fresh(dtype="bfloat16")
    assert recipe.declare(model, graph) == 12 * 2 * (4 * 2 + 4)
    plans = recipe.wrap(Neighbor((2,), batch_size=3)).prepare(graph, model.propagation, 3)
    around = with_node_prob(plans, graph.num_nodes)
    memory = recipe.bind(Setting(model, graph, around))
    assert memory.tables.nbytes == recipe.declare(model, graph)
    run(model, graph, around, memory, range(6), adam(model))
    assert memory.report()["cache_hits"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p_grad": 1.5}, "p_grad is 1.5; it must lie in"),
        ({"p_grad": -0.1}, "p_grad is -0.1"),
        ({"t_stale": -1}, "t_stale is -1"),
        ({"dtype": "float16"}, "unknown dtype 'float16'"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        build("fresh", **options)


def test_what_has_no_cache_is_refused():
    graph, model = tiny(), small_model("gcn")
    args = (graph, model.propagation, model.num_hops)
    with pytest.raises(InputError, match="Cluster does not do"):
        Fresh().wrap(Cluster(parts=3, parts_per_batch=1)).prepare(*args)
    plans = Neighbor((2,), batch_size=3).prepare(*args)
    with pytest.raises(InputError, match="needs plans with a cache, got NeighborPlans"):
        Fresh().bind(Setting(model, graph, plans))
